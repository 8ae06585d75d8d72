// Package septet serves a Go function on Septet: see Start.
package septet

import (
	"encoding/binary"
	"errors"
	"io"
)

// The frame format, docs/frames.md.
const (
	typeRequest = iota + 1
	typeData
	typeReply
	typeCancel
	typeWindow
	typeLog
	typeReady
	typeError
	typeStarted
	typeGone
	typeDrain
	typeSpecialise
)

const (
	flagEnd          = 1
	flagNeverStarted = 2
	windowSize       = 256 * 1024
	piece            = 64 * 1024
	frameMax         = 1024 * 1024
	headerSize       = 12
)

var errProtocol = errors.New("the platform broke the frame protocol")

type frame struct {
	kind, flags byte
	stream      uint32
	head, body  []byte
}

func encode(kind byte, stream uint32, head, body []byte, flags byte) []byte {
	data := make([]byte, headerSize, headerSize+len(head)+len(body))
	binary.BigEndian.PutUint32(data, uint32(len(head)+len(body)))
	binary.BigEndian.PutUint32(data[4:], stream)
	data[8], data[9] = kind, flags
	binary.BigEndian.PutUint16(data[10:], uint16(len(head)))
	data = append(data, head...)
	return append(data, body...)
}

func encodeWindow(stream uint32, credit int) []byte {
	return encode(typeWindow, stream, nil, binary.BigEndian.AppendUint32(nil, uint32(credit)), 0)
}

func readFrame(from io.Reader) (frame, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return frame{}, err
	}
	length := binary.BigEndian.Uint32(header[:])
	head := binary.BigEndian.Uint16(header[10:])
	if length > frameMax || uint32(head) > length || header[8] < typeRequest || header[8] > typeSpecialise {
		return frame{}, errProtocol
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(from, data); err != nil {
		return frame{}, err
	}
	stream := binary.BigEndian.Uint32(header[4:])
	return frame{header[8], header[9], stream, data[:head], data[head:]}, nil
}
