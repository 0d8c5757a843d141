// Verifies a tlog-tiles log with the Go project's own packages, which share no code with ours.
//
//	verify LOGDIR VKEYFILE
//
// Every entry of every bundle is hashed (tlog.RecordHash) and compared with its tile, every tile
// (tlog.NodeHash) with the one above, and the tree's hash over the tiles (tlog.TreeHash) with the
// checkpoint, whose signature is checked first (note.Open), under any of the keys in VKEYFILE, a line
// each. Last, proofs of a few entries are made
// and checked by TileHashReader, which trusts nothing but the root. Prints "OK <entries>", or "BAD"
// and what does not fit. One pass: a million entries take seconds.
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

const height, full = 8, 1 << 8

func fail(format string, args ...interface{}) {
	fmt.Printf("BAD "+format+"\n", args...)
	os.Exit(1)
}

// A reader reads tiles from the log's folder; it serves both TileHashReader and TreeHash.
type reader struct {
	dir  string
	size int64
}

func (r reader) Height() int { return height }

func (r reader) read(tile tlog.Tile) ([]byte, error) {
	// Go prints tile/8/L/N; C2SP leaves the height out.
	path := "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
	data, err := os.ReadFile(filepath.Join(r.dir, path))
	if err != nil {
		return nil, err
	}
	if len(data) != tile.W*tlog.HashSize {
		return nil, fmt.Errorf("%s: %d bytes", path, len(data))
	}
	return data, nil
}

func (r reader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		data, err := r.read(tile)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func (r reader) SaveTiles([]tlog.Tile, [][]byte) {}

// width of the n-th tile of a level that has so many hashes.
func width(hashes, n int64) int64 {
	if rest := hashes - n*full; rest < full {
		return rest
	}
	return full
}

func (r reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, index := range indexes {
		tile := tlog.TileForIndex(height, index)
		tile.W = int(width(r.size>>(height*uint(tile.L)), tile.N))
		data, err := r.read(tile)
		if err != nil {
			return nil, err
		}
		hash, err := tlog.HashFromTile(tile, data, index)
		if err != nil {
			return nil, err
		}
		out = append(out, hash)
	}
	return out, nil
}

func bundlePath(n int64, width int64) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if width != full {
		path += ".p/" + strconv.FormatInt(width, 10)
	}
	return "tile/entries/" + path
}

func opened(dir, vkeyFile string) tlog.Tree {
	vkey, err := os.ReadFile(vkeyFile)
	if err != nil {
		fail("vkey: %v", err)
	}
	var verifiers []note.Verifier
	for _, line := range strings.Fields(string(vkey)) {
		verifier, err := note.NewVerifier(line)
		if err != nil {
			fail("vkey: %v", err)
		}
		verifiers = append(verifiers, verifier)
	}
	if len(verifiers) == 0 {
		fail("vkey: none")
	}
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	// Lines of witnesses are of keys that we do not know here: Open passes over them.
	note, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		fail("checkpoint: %v", err)
	}
	lines := strings.Split(note.Text, "\n")
	if len(lines) != 4 || lines[0] != note.Sigs[0].Name {
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
	return tlog.Tree{N: size, Hash: root}
}

// leaves hashes a bundle's entries; the lengths in it are a stranger's.
func leaves(dir string, n, width int64) []tlog.Hash {
	data, err := os.ReadFile(filepath.Join(dir, bundlePath(n, width)))
	if err != nil {
		fail("bundle %d: %v", n, err)
	}
	var out []tlog.Hash
	for i := int64(0); i < width; i++ {
		if len(data) < 2 {
			fail("entry %d: cut short", n*full+i)
		}
		length := int(binary.BigEndian.Uint16(data))
		if len(data)-2 < length {
			fail("entry %d: cut short", n*full+i)
		}
		out = append(out, tlog.RecordHash(data[2:2+length]))
		data = data[2+length:]
	}
	if len(data) != 0 {
		fail("bundle %d: too long", n)
	}
	return out
}

// compare holds a tile against the hashes that were computed for it.
func compare(r reader, level int, n int64, computed []tlog.Hash) {
	data, err := r.read(tlog.Tile{H: height, L: level, N: n, W: len(computed)})
	if err != nil {
		fail("tile %d/%d: %v", level, n, err)
	}
	for i, hash := range computed {
		if string(data[i*tlog.HashSize:(i+1)*tlog.HashSize]) != string(hash[:]) {
			fail("entry %d: not the one logged", (n*full+int64(i))<<(height*uint(level)))
		}
	}
}

// fold hashes a full tile into the one hash that the tile above has of it.
func fold(row []tlog.Hash) tlog.Hash {
	for len(row) > 1 {
		above := make([]tlog.Hash, len(row)/2)
		for i := range above {
			above[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
		row = above
	}
	return row[0]
}

func main() {
	if len(os.Args) != 3 {
		fail("usage: verify LOGDIR VKEYFILE")
	}
	dir := os.Args[1]
	tree := opened(dir, os.Args[2])
	if tree.N == 0 {
		if tree.Hash.String() != "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" {
			fail("empty root")
		}
		fmt.Println("OK 0")
		return
	}
	files := reader{dir, tree.N}
	var above []tlog.Hash // of the full tiles of the level that was checked last
	for n := int64(0); n*full < tree.N; n++ {
		row := leaves(dir, n, width(tree.N, n))
		compare(files, 0, n, row)
		if len(row) == full {
			above = append(above, fold(row))
		}
	}
	for level := 1; len(above) > 0; level++ {
		var next []tlog.Hash
		for n := int64(0); n*full < int64(len(above)); n++ {
			row := above[n*full : n*full+width(int64(len(above)), n)]
			compare(files, level, n, row)
			if len(row) == full {
				next = append(next, fold(row))
			}
		}
		above = next
	}
	root, err := tlog.TreeHash(tree.N, files)
	if err != nil {
		fail("root: %v", err)
	}
	if root != tree.Hash {
		fail("root: not that of the entries")
	}
	prove(tree, files)
	fmt.Printf("OK %d\n", tree.N)
}

// prove makes and checks inclusion proofs by code that checks each tile against the root.
func prove(tree tlog.Tree, files reader) {
	hashes := tlog.TileHashReader(tree, files)
	for _, index := range []int64{0, tree.N / 3, tree.N / 2, tree.N - 1} {
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			fail("leaf %d: %v", index, err)
		}
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			fail("proof %d: %v", index, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			fail("proof %d: %v", index, err)
		}
	}
}
