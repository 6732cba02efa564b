"""The measuring tool counts what each connection has, and not what others do meanwhile."""

from pathlib import Path

from fastsse.doctor.measure import Cache, growth, one_each, read_caches

SLABINFO = """\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables ...
TCP                  12     26   2368   13    8 : tunables    0    0    0 : slabdata 2 2 0
filp               1000   1050    192   21    1 : tunables    0    0    0 : slabdata 50 50 0
"""


def test_an_object_costs_its_share_of_the_slab(tmp_path: Path) -> None:
    path = tmp_path / "slabinfo"
    path.write_text(SLABINFO)
    caches = read_caches(str(path))
    assert caches["TCP"].objects == 12
    assert caches["TCP"].object_bytes == 2368
    assert caches["TCP"].object_cost_bytes * 13 == 8 * caches["filp"].object_cost_bytes * 21


def test_growth_is_counted_by_connection() -> None:
    before = {"TCP": Cache(10, 1, 1.0), "gone": Cache(5, 1, 1.0)}
    after = {"TCP": Cache(210, 1, 1.0), "new": Cache(5, 1, 1.0)}
    assert growth(before, after, 100) == {"TCP": 2.0}


def test_only_what_every_connection_has_counts() -> None:
    trials = [
        {"TCP": 1.0, "dentry": 2.0, "proc_inode_cache": 1.0, "noise": 0.0},
        {"TCP": 0.99, "dentry": 1.01, "proc_inode_cache": 0.0, "noise": 0.4},
    ]
    assert one_each(trials) == ["TCP", "dentry"]
