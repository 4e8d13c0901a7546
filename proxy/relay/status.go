package relay

import (
	"fmt"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// Status is a gRPC status that the proxy gives by itself.
type Status struct {
	Code    codes.Code
	Message string
}

func (s *Status) Error() string { return fmt.Sprintf("%v: %s", s.Code, s.Message) }

// trailers are the fields that end a stream with s.
func (s *Status) trailers() []hpack.HeaderField {
	f := []hpack.HeaderField{{Name: "grpc-status", Value: strconv.Itoa(int(s.Code))}}
	if s.Message != "" {
		f = append(f, hpack.HeaderField{Name: "grpc-message", Value: escapeMessage(s.Message)})
	}
	return f
}

// escapeMessage percent-encodes as gRPC's protocol over HTTP/2 asks for
// (PROTOCOL-HTTP2.md, "Status-Message").
func escapeMessage(s string) string {
	const hex = "0123456789ABCDEF"
	var b []byte
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c <= '~' && c != '%' {
			b = append(b, c)
			continue
		}
		b = append(b, '%', hex[c>>4], hex[c&15])
	}
	return string(b)
}

// unescapeMessage is its inverse; what is not a valid escape stays.
func unescapeMessage(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(n))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// statusOf reads grpc-status and grpc-message; code is -1 without one.
func statusOf(fields []hpack.HeaderField) (code int, message string) {
	code = -1
	for i := range fields {
		switch fields[i].Name {
		case "grpc-status":
			if n, err := strconv.Atoi(fields[i].Value); err == nil {
				code = n
			}
		case "grpc-message":
			message = unescapeMessage(fields[i].Value)
		}
	}
	return code, message
}
