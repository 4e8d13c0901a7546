package kek_test

import (
	"testing"

	"github.com/etcdseal/etcdseal/kek"
)

func TestPurpose(t *testing.T) {
	ctx := kek.WithDEK(kek.WithWhy(t.Context(), kek.WhyNewDEK), "3f2a")
	proof := kek.WithWhy(ctx, kek.WhyProof)
	for _, test := range []struct{ got, want kek.Purpose }{
		{kek.PurposeOf(t.Context()), kek.Purpose{}},
		{kek.PurposeOf(ctx), kek.Purpose{DEK: "3f2a", Why: kek.WhyNewDEK}},
		{kek.PurposeOf(proof), kek.Purpose{DEK: "3f2a", Why: kek.WhyProof}},
	} {
		if test.got != test.want {
			t.Errorf("got %+v, want %+v", test.got, test.want)
		}
	}
}
