package guide

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRead(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Block
		wantError  string
	}{
		{name: "nothing", text: "# A\n\nwords\n"},
		{
			name: "blocks",
			text: "# A\n```sh each\none \\\n  two\n```\n## B `x`\n\n```text\n# no heading\n```\n```sh cp1\nthree\n```\n",
			want: []Block{
				{Section: "A", Nodes: "each", Script: "one \\\n  two\n", Line: 2},
				{Section: "B `x`", Nodes: "cp1", Script: "three\n", Line: 11},
			},
		},
		{name: "a heading within commands", text: "```sh each\n# why\nx\n```\n", want: []Block{{Nodes: "each", Script: "# why\nx\n", Line: 1}}},
		{name: "no nodes", text: "```sh\nx\n```\n", wantError: "do not say for which nodes"},
		{name: "not closed", text: "```sh each\nx\n", wantError: "is not closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "guide.md")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Read(file)
			if tt.wantError == "" && err != nil || tt.wantError != "" && (err == nil || !strings.Contains(err.Error(), tt.wantError)) {
				t.Errorf("got error %v, want %q", err, tt.wantError)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("blocks (-want +got):\n%s", diff)
			}
		})
	}
}
