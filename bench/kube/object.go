package kube

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// protobufType is the media type of Kubernetes' protobuf form, in which controllers and kubelets speak to kube-apiserver. It spares both sides JSON and
// base64, which would cover up part of what is compared here.
const protobufType = "application/vnd.kubernetes.protobuf"

// protobufMagic stands before every message of that form, on the wire and in etcd.
const protobufMagic = "k8s\x00"

// Field numbers of the messages that are used: runtime.Unknown, runtime.TypeMeta, meta/v1.ObjectMeta and ListMeta, core/v1.Secret and SecretList
// (generated.proto of k8s.io/apimachinery and k8s.io/api).
const (
	unknownTypeMeta, unknownRaw       = 1, 2
	typeMetaVersion, typeMetaKind     = 1, 2
	objectMeta                        = 1 // of every object
	metaName, metaNamespace           = 1, 3
	secretData, secretType            = 2, 3
	dataKey, dataValue                = 1, 2 // of a map's entry
	listMeta, listItems               = 1, 2
	listMetaVersion, listMetaContinue = 2, 3
)

// dataName is the one entry of every secret.
const dataName = "value"

// encodeSecret is a Secret of type Opaque with one entry, as a request's body.
func encodeSecret(namespace, name string, value []byte) []byte {
	entry := appendBytes(appendBytes(nil, dataKey, []byte(dataName)), dataValue, value)
	object := appendBytes(nil, objectMeta, encodeMeta(namespace, name))
	object = appendBytes(object, secretData, entry)
	object = appendBytes(object, secretType, []byte("Opaque"))
	return encodeUnknown("Secret", object)
}

// encodeNamespace is a Namespace, as a request's body.
func encodeNamespace(name string) []byte {
	return encodeUnknown("Namespace", appendBytes(nil, objectMeta, encodeMeta("", name)))
}

func encodeMeta(namespace, name string) []byte {
	meta := appendBytes(nil, metaName, []byte(name))
	if namespace != "" {
		meta = appendBytes(meta, metaNamespace, []byte(namespace))
	}
	return meta
}

func encodeUnknown(kind string, object []byte) []byte {
	meta := appendBytes(appendBytes(nil, typeMetaVersion, []byte("v1")), typeMetaKind, []byte(kind))
	return appendBytes(appendBytes([]byte(protobufMagic), unknownTypeMeta, meta), unknownRaw, object)
}

func appendBytes(b []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}

// list is what is of interest in a SecretList.
type list struct {
	items    int
	version  string // the resource version
	more     bool   // whether there is a further page
	contents int    // bytes of the items
}

func decodeList(body []byte) (list, error) {
	raw, err := decodeUnknown(body, "SecretList")
	if err != nil {
		return list{}, err
	}
	var l list
	err = eachField(raw, func(number protowire.Number, value []byte) error {
		switch number {
		case listItems:
			l.items++
			l.contents += len(value)
		case listMeta:
			return eachField(value, func(number protowire.Number, value []byte) error {
				switch number {
				case listMetaVersion:
					l.version = string(value)
				case listMetaContinue:
					l.more = len(value) > 0
				}
				return nil
			})
		}
		return nil
	})
	return l, err
}

// decodeSecretValue is the value of a Secret's one entry, from an answer's body or from what etcd holds in plaintext.
func decodeSecretValue(body []byte) ([]byte, error) {
	raw, err := decodeUnknown(body, "Secret")
	if err != nil {
		return nil, err
	}
	var found []byte
	err = eachField(raw, func(number protowire.Number, value []byte) error {
		if number != secretData {
			return nil
		}
		return eachField(value, func(number protowire.Number, value []byte) error {
			if number == dataValue {
				found = value
			}
			return nil
		})
	})
	return found, err
}

// decodeUnknown is the object inside the envelope of Kubernetes' protobuf form, which must say that it is of the kind.
func decodeUnknown(body []byte, kind string) (object []byte, err error) {
	rest, ok := bytes.CutPrefix(body, []byte(protobufMagic))
	if !ok {
		return nil, errors.New("decoding an object: not in protobuf form")
	}
	var is string
	err = eachField(rest, func(number protowire.Number, value []byte) error {
		switch number {
		case unknownRaw:
			object = value
		case unknownTypeMeta:
			return eachField(value, func(number protowire.Number, value []byte) error {
				if number == typeMetaKind {
					is = string(value)
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && is != kind {
		err = fmt.Errorf("decoding an object: it is of another kind than %s", kind)
	}
	return object, err
}

// eachField calls f for every field that has a length, and skips the others.
func eachField(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("decoding an object: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return fmt.Errorf("decoding an object: %w", protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return fmt.Errorf("decoding an object: %w", protowire.ParseError(n))
		}
		if err := f(number, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
