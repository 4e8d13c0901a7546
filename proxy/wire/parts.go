package wire

import (
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// Whole returns how many bytes at the beginning of a message, of which only a part
// is there, are whole fields, and how many it takes from there on to see the next
// field whole, as far as can be told: at least one more than are there, or 0 if
// nothing makes them a valid field. The whole fields are a message of their own: a
// message may be cut between any two of its fields and means the same when the
// parts are put together again.
func Whole(part []byte) (whole, need int) {
	for {
		if whole < len(part) && part[whole]&0x87 == byte(protowire.BytesType) && part[whole]>>3 > 0 {
			if _, end := shortField(part, whole, len(part)); end > 0 {
				whole = end
				continue
			}
		}
		left := part[whole:]
		_, typ, n := protowire.ConsumeTag(left)
		if n > 0 && typ == protowire.BytesType {
			if length, k := protowire.ConsumeVarint(left[n:]); k > 0 && uint64(len(left)-n-k) < length {
				return whole, needed(length, n+k)
			}
		}
		_, _, n = protowire.ConsumeField(left)
		switch {
		case n > 0:
			whole += n
		case protowire.ParseError(n) == io.ErrUnexpectedEOF:
			return whole, len(left) + 1
		default:
			return whole, 0
		}
	}
}

// maxMessage is the largest message that gRPC can carry, in bytes.
const maxMessage = 1<<32 - 1

// needed is how long a field is whose content comes behind so many bytes, 0 if no
// message can hold it.
func needed(length uint64, before int) int {
	if length > maxMessage {
		return 0
	}
	return before + int(length)
}

// streamTag is the tag of the only field of a RangeStreamResponse.
const streamTag = 1<<3 | byte(protowire.BytesType)

// StreamRoom is what StreamHeader and PutStreamHeader need at most.
const StreamRoom = 1 + 5

// StreamHeader reads the beginning of a RangeStreamResponse of size bytes. It returns
// where the RangeResponse in it begins if that fills the rest of the message, else 0.
func StreamHeader(part []byte, size int) int {
	if len(part) == 0 || part[0] != streamTag {
		return 0
	}
	length, n := protowire.ConsumeVarint(part[1:])
	if n < 0 || n >= StreamRoom || length != uint64(size-1-n) {
		return 0
	}
	return 1 + n
}

// PutStreamHeader makes a RangeStreamResponse of the RangeResponse that stands behind
// StreamRoom bytes of msg, in its memory.
func PutStreamHeader(msg []byte) []byte {
	length := uint64(len(msg) - StreamRoom)
	at := StreamRoom - 1 - protowire.SizeVarint(length)
	protowire.AppendVarint(append(msg[:at], streamTag), length)
	return msg[at:]
}
