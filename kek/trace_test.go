package kek_test

import (
	"context"
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

func TestTrace(t *testing.T) {
	var got kek.Trace
	ctx, cancel := context.WithCancel(kek.WithTrace(t.Context(), &got))
	defer cancel()
	kek.TraceFrom(ctx).Tries = 2
	if got.Tries != 2 {
		t.Errorf("got %+v", got)
	}
	kek.TraceFrom(t.Context()).Tries = 3 // goes nowhere
	if again := kek.TraceFrom(t.Context()); again == nil || again.Tries != 0 {
		t.Errorf("got %+v", again)
	}
}
