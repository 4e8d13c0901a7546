// Package guide takes the commands out of the project's guides, so that tests can run
// them as they are printed. A fence whose info string is "sh each" holds commands for
// every node, one after the other, "sh cp1" for the node of that name; other fences are
// no commands.
package guide

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// Block is a fenced block of commands.
type Block struct {
	// Section is the text of the heading that it stands under.
	Section string
	// Nodes is "each" or a node's name.
	Nodes  string
	Script string
	Line   int // of the fence
}

// Read returns a guide's blocks in their order.
func Read(file string) ([]Block, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var blocks []Block
	var section, fence string
	var block *Block
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case fence == "" && strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		case fence == "" && strings.HasPrefix(line, "```"):
			fence = line
			if nodes, ok := strings.CutPrefix(line, "```sh "); ok {
				block = &Block{Section: section, Nodes: nodes, Line: n}
			} else if line == "```sh" {
				return nil, fmt.Errorf("%s:%d: the commands do not say for which nodes they are", file, n)
			}
		case fence != "" && line == "```":
			if block != nil {
				blocks = append(blocks, *block)
			}
			fence, block = "", nil
		case block != nil:
			block.Script += line + "\n"
		}
	}
	if fence != "" {
		return nil, fmt.Errorf("%s: a fence is not closed: %s", file, fence)
	}
	return blocks, lines.Err()
}
