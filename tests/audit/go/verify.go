// Verifies a tlog-tiles log with the Go project's own packages, which share no code with ours.
//
//	verify LOGDIR VKEYFILE          every entry against the root, by inclusion proofs over the tiles
//
// GO111MODULE=off GOPATH=/usr/share/gocode go run verify.go ... (Debian: golang-golang-x-mod-dev)
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func fail(format string, args ...interface{}) {
	fmt.Printf("BAD "+format+"\n", args...)
	os.Exit(1)
}

type reader struct{ dir string }

func (r reader) Height() int { return 8 }

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		// Go prints tile/8/L/N; C2SP leaves the height out.
		path := "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		data, err := os.ReadFile(filepath.Join(r.dir, path))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes", path, len(data))
		}
		out = append(out, data)
	}
	return out, nil
}

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

func bundlePath(n int64, width int64) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width != 256 {
		path += ".p/" + strconv.FormatInt(width, 10)
	}
	return "tile/entries/" + path
}

func main() {
	dir := os.Args[1]
	vkey, err := os.ReadFile(os.Args[2])
	if err != nil {
		fail("vkey: %v", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		fail("vkey: %v", err)
	}
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		fail("checkpoint text")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		fail("checkpoint size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		fail("checkpoint root")
	}
	if size == 0 {
		empty, _ := tlog.TreeHash(0, nil)
		if empty != root && root.String() != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
			fail("empty root")
		}
		fmt.Println("OK 0")
		return
	}
	tree := tlog.Tree{N: size, Hash: root}
	// TileHashReader checks every tile that it reads against the root.
	hashes := tlog.TileHashReader(tree, reader{dir})
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		if width > 256 {
			width = 256
		}
		data, err := os.ReadFile(filepath.Join(dir, bundlePath(n, width)))
		if err != nil {
			fail("bundle %d: %v", n, err)
		}
		var indexes []int64
		var leaves []tlog.Hash
		for i := int64(0); i < width; i++ {
			if len(data) < 2 {
				fail("entry %d: cut short", n*256+i)
			}
			length := int(binary.BigEndian.Uint16(data))
			if len(data)-2 < length {
				fail("entry %d: cut short", n*256+i)
			}
			leaves = append(leaves, tlog.RecordHash(data[2:2+length]))
			indexes = append(indexes, tlog.StoredHashIndex(0, n*256+i))
			data = data[2+length:]
		}
		if len(data) != 0 {
			fail("bundle %d: too long", n)
		}
		stored, err := hashes.ReadHashes(indexes)
		if err != nil {
			fail("tile %d: %v", n, err)
		}
		for i := range stored {
			if stored[i] != leaves[i] {
				fail("entry %d: not the one logged", n*256+int64(i))
			}
		}
	}
	for _, index := range []int64{0, size / 2, size - 1} {
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			fail("leaf %d: %v", index, err)
		}
		proof, err := tlog.ProveRecord(size, index, hashes)
		if err != nil {
			fail("proof %d: %v", index, err)
		}
		if err := tlog.CheckRecord(proof, size, root, index, leaf[0]); err != nil {
			fail("proof %d: %v", index, err)
		}
	}
	fmt.Printf("OK %d\n", size)
}
