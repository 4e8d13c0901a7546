package migrate

// SetChunk has a scanner look at files in chunks of a size.
func (s *Scanner) SetChunk(size int64) { s.chunk = size }
