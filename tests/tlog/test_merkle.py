"""What the Merkle core promises, of every tree rather than of three. Each test names its lie."""

from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.tlog import (
    EMPTY_ROOT,
    Edge,
    ListHashes,
    TileHashes,
    consistency_proof,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
    parse_tile_path,
    root_of,
    tile_path,
    tiles_of,
)

hashes = st.binary(min_size=32, max_size=32)


def leaves_of(size):
    return [leaf_hash(b"%d" % number) for number in range(size)]


def naive_root(leaves):
    """RFC 9162, 2.1.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(naive_root(leaves[:k]), naive_root(leaves[k:]))


@st.composite
def claims(draw):
    leaves = leaves_of(draw(st.integers(1, 70)))
    index = draw(st.integers(0, len(leaves) - 1))
    reader = ListHashes(leaves)
    return {
        "leaf": leaves[index],
        "index": index,
        "size": len(leaves),
        "proof": inclusion_proof(reader, index, len(leaves)),
        "root": root_of(reader, len(leaves)),
    }


@st.composite
def growths(draw):
    new = draw(st.integers(1, 70))
    old = draw(st.integers(1, new))
    reader = ListHashes(leaves_of(new))
    return {
        "old": old,
        "old_root": root_of(reader, old),
        "new": new,
        "new_root": root_of(reader, new),
        "proof": consistency_proof(reader, old, new),
    }


def test_known_hashes_of_rfc_6962():
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    empty_leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"").hex() == empty_leaf
    # The tree of the certificate-transparency project's own tests.
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    inputs.append("606162636465666768696a6b6c6d6e6f")
    roots = {
        1: empty_leaf,
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    leaves = [leaf_hash(bytes.fromhex(text)) for text in inputs]
    for size, root in roots.items():
        assert root_of(ListHashes(leaves), size).hex() == root


def test_root_is_the_rfcs_for_every_small_size():
    leaves = leaves_of(130)
    for size in range(131):
        assert root_of(ListHashes(leaves), size) == naive_root(leaves[:size])


@given(claims())
def test_the_truth_is_believed(claim):
    assert is_included(**claim)


@given(claims(), st.data())
def test_no_flipped_bit_survives(claim, data):
    parts = [claim["leaf"], claim["root"], *claim["proof"]]
    part = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    parts[part] = (int.from_bytes(parts[part]) ^ 1 << bit).to_bytes(32)
    leaf, root, *proof = parts
    assert not is_included(**claim | {"leaf": leaf, "root": root, "proof": proof})


@given(claims(), st.integers(1, 140))
def test_a_proof_must_be_as_long_as_its_size_demands(claim, size):
    index = min(claim["index"], size - 1)
    demanded = len(inclusion_proof(ListHashes(leaves_of(size)), index, size))
    if demanded != len(claim["proof"]):
        assert not is_included(**claim | {"index": index, "size": size})


@given(claims(), hashes)
def test_no_storey_can_be_added_above_the_root(claim, extra):
    taller = {"proof": [*claim["proof"], extra], "root": node_hash(extra, claim["root"])}
    assert not is_included(**claim | taller)


@given(hashes, hashes)
def test_a_node_never_passes_for_a_record(left, right):
    assert leaf_hash(left + right) != node_hash(left, right)


@given(growths())
def test_honest_growth_is_believed(growth):
    assert is_consistent(**growth)


@given(growths(), st.data())
def test_no_flipped_bit_survives_in_a_consistency_proof(growth, data):
    parts = [growth["old_root"], growth["new_root"], *growth["proof"]]
    part = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    parts[part] = (int.from_bytes(parts[part]) ^ 1 << bit).to_bytes(32)
    old_root, new_root, *proof = parts
    assert not is_consistent(
        **growth | {"old_root": old_root, "new_root": new_root, "proof": proof}
    )


@given(growths(), hashes)
def test_a_consistency_proof_has_no_room_for_more_or_less(growth, extra):
    assert not is_consistent(**growth | {"proof": (*growth["proof"], extra)})
    if growth["proof"]:
        assert not is_consistent(**growth | {"proof": growth["proof"][:-1]})
        assert not is_consistent(**growth | {"proof": growth["proof"][1:]})


def test_everything_extends_the_empty_tree_and_nothing_else_does():
    root = root_of(ListHashes(leaves_of(5)), 5)
    assert is_consistent(old=0, old_root=EMPTY_ROOT, new=5, new_root=root, proof=())
    assert not is_consistent(old=0, old_root=root, new=5, new_root=root, proof=())
    assert not is_consistent(old=0, old_root=EMPTY_ROOT, new=5, new_root=root, proof=(root,))


class Tiles(dict):
    def tile(self, level, number, width):
        return self[tile_path(level, number, width)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=5))
def test_tiles_grow_as_one_tree_whatever_the_batches(batches):
    leaves = leaves_of(sum(batches))
    edge, tiles, at = Edge(), Tiles(), 0
    for batch in batches:
        edge, files = edge.grown(leaves[at : at + batch])
        tiles.update(files)
        at += batch
        assert edge.root() == root_of(ListHashes(leaves), at)
    reader = TileHashes(tiles, at)
    assert root_of(reader, at) == edge.root()

    def read(level, number, width):
        data = tiles.tile(level, number, width)
        return [data[spot : spot + 32] for spot in range(0, 32 * width, 32)]

    assert Edge.load(at, read) == edge
    for level, number, width in tiles_of(at):
        assert len(tiles.tile(level, number, width)) == 32 * width
    for index in {0, at // 2, at - 1} if at else ():
        proof = inclusion_proof(reader, index, at)
        assert proof == inclusion_proof(ListHashes(leaves), index, at)


def test_tile_paths_of_the_specification():
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert tile_path(1, 1, 17) == "tile/1/001.p/17"
    assert list(tiles_of(256)) == [(0, 0, 256), (1, 0, 1)]
    of_70000 = list(tiles_of(70_000))
    assert of_70000[-4:] == [(0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)]
    assert len(of_70000) == 273 + 4


@given(st.integers(0, 63), st.integers(0, 10**12), st.integers(1, 256))
def test_tile_paths_read_back(level, number, width):
    assert parse_tile_path(tile_path(level, number, width)) == (str(level), number, width)


def test_only_the_shortest_spelling_is_a_path():
    for path in (
        "tile/0/1",
        "tile/00/001",
        "tile/64/001",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/257",
        "tile/0/001.p/01",
        "tile/0/../001",
        "tile/0/001/",
        "tile/0/001\n",
        "tile/0/٠٠١",
    ):
        assert parse_tile_path(path) is None
