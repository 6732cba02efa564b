"""Messages between nodes, in parts."""

import pytest

from fastsse.wakes.parts import NAME_BYTES, Assembly, parts_of

NAMES = [bytes([n]) * NAME_BYTES for n in range(3)]


@pytest.mark.parametrize("size", [0, 1, 192 * 1024, 192 * 1024 + 1, 1_000_000])
def test_a_message_comes_out_as_it_went_in(size: int) -> None:
    message = bytes(n % 251 for n in range(size))
    parts = list(parts_of(b"?", NAMES[0], message))
    assert all(len(part) <= 256 * 1024 for part in parts)
    assembly = Assembly()
    *before, last = (assembly.add(b"node", part) for part in parts)
    assert before == [None] * len(before)
    assert last == (b"?", NAMES[0], message)


def test_messages_of_several_nodes_under_one_name_are_not_mixed() -> None:
    assembly, whole = Assembly(), []
    messages = {node: node * 200_000 for node in (b"a", b"b")}
    parts = [(node, list(parts_of(b"!", NAMES[0], text))) for node, text in messages.items()]
    for number in range(2):
        for node, its in parts:
            whole.append(assembly.add(node, its[number]))
    assert [found for found in whole if found] == [
        (b"!", NAMES[0], text) for text in messages.values()
    ]


def test_a_message_with_a_lost_part_never_comes_out() -> None:
    parts = list(parts_of(b"?", NAMES[0], bytes(600_000)))
    for lost in range(len(parts)):
        assembly = Assembly()
        left = parts[:lost] + parts[lost + 1 :]
        assert [assembly.add(b"node", part) for part in left] == [None] * len(left)


def test_a_part_that_is_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="cut"):
        Assembly().add(b"node", b"?short")


def test_unfinished_messages_are_bounded_and_end_with_their_node() -> None:
    assembly = Assembly()
    first = list(parts_of(b"?", NAMES[0], bytes(200_000)))
    assembly.add(b"gone", first[0])
    assembly.forget(b"gone")
    assert assembly.add(b"gone", first[1]) is None
    assembly.add(b"node", first[0])
    for number in range(400):  # 75 MiB of them.
        name = number.to_bytes(NAME_BYTES, "big")
        assembly.add(b"other", next(iter(parts_of(b"?", name, bytes(200_000)))))
    assert assembly.add(b"node", first[1]) is None
    assert assembly._held_bytes <= 64 * 1024 * 1024
