"""Which pictures a shard has, and digests of lists."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from faprompt.bulk import WHOLE_RUN, Shard, shard_of
from faprompt.bulk.shard_split import FileDigest
from faprompt.errors import ConfigError
from faprompt.storage import StoredFile

PATHS = [f"s3://lot/line {number % 7}/part_{number}.png" for number in range(4000)]


def test_the_split_is_a_hash_of_the_text():
    for path in PATHS[:20]:
        digest = hashlib.blake2b(path.encode(), digest_size=8).hexdigest()
        assert shard_of(path, 40) == int(digest, 16) % 40 + 1
    assert shard_of("s3://lot/line 0/part_0.png", 40) == 14
    assert shard_of("a\udcff.png", 5) in range(1, 6)


def test_each_picture_has_one_shard_and_shards_are_of_like_size():
    shards = [Shard(index, 8) for index in range(1, 9)]
    assert all(sum(shard.holds(path) for shard in shards) == 1 for path in PATHS[:200])
    counts = Counter(shard_of(path, 8) for path in PATHS)
    assert set(counts) == set(range(1, 9))
    assert all(abs(count - 500) < 6 * 500**0.5 for count in counts.values())
    assert all(WHOLE_RUN.holds(path) for path in PATHS)


def test_names_and_text():
    assert Shard.parse("7/40") == Shard(7, 40)
    assert str(Shard(7, 40)) == "7/40" and Shard(7, 40).folder == "shards/00007-of-00040/"
    assert WHOLE_RUN.folder == ""


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1/100000", "a/4", "1", "1/4/2", "-1/4", ""])
def test_other_shards_are_refused(text):
    with pytest.raises(ConfigError, match="I/N"):
        Shard.parse(text)


def test_digests_add_up_in_any_order():
    files = [StoredFile(path, str(i)) for i, path in enumerate(PATHS)]
    whole, odd, even = FileDigest(), FileDigest(), FileDigest()
    for i, file in enumerate(files):
        whole.add(file)
        (odd if i % 2 else even).add(files[-1 - i])
    assert odd + even == whole
    assert FileDigest.from_dict(whole.to_dict()) == whole and whole.files == 4000
    other = FileDigest()
    for file in [*files[1:], StoredFile(PATHS[0], "changed")]:
        other.add(file)
    assert other != whole and other.files == whole.files
