package rig

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// unknownVersion is what an etcdseal says of itself which was built neither by the Makefile nor with what git knows of the checkout.
const unknownVersion = "(devel)"

// SealVersion is what an etcdseal binary says of itself, or the checkout's commit for one that was built from it and knows nothing.
func SealVersion(ctx context.Context, path string, built bool) (string, error) {
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return "", fmt.Errorf("asking etcdseal for its version: %w", err)
	}
	version, err := parseSealVersion(string(out))
	if err != nil || version != unknownVersion || !built {
		return version, err
	}
	commit, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil || ctx.Err() != nil { // a checkout without git is as good for everything else
		return version, ctx.Err()
	}
	return strings.TrimSpace(string(commit)), nil
}

// parseSealVersion reads "etcdseal v1.2.3 go1.26.0 linux/amd64".
func parseSealVersion(text string) (string, error) {
	words := strings.Fields(text)
	if len(words) != 4 || words[0] != "etcdseal" {
		return "", fmt.Errorf("reading etcdseal's version: %q is not one", text)
	}
	return words[1], nil
}
