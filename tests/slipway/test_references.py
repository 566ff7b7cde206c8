"""References: three forms, and what is said of anything else."""

import pytest

from slipway.references import Reference

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("file:data/reviews.csv", Reference("file", path="data/reviews.csv")),
        ("file:/评论/*.csv", Reference("file", path="/评论/*.csv")),
        ("pypi:vaderSentiment==2.5/a/b.tar.gz/*.txt", Reference("pypi", "vaderSentiment", "2.5", "a/b.tar.gz/*.txt")),
        ("hub:org/name@abc123", Reference("hub", "org/name", "abc123")),
        ("hub:imdb@refs/pr/1", Reference("hub", "imdb", "refs/pr/1")),
    ],
)
def test_each_form_is_read_and_written_back(text: str, parsed: Reference) -> None:
    assert Reference.parse(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize(
    "text", ["", "reviews.csv", "file:", "s3:bucket/x", "pypi:name/path", "pypi:name==1", "hub:@x"]
)
def test_anything_else_is_told_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reference; allowed are hub:org/name@revision, file:path, or pypi:"):
        Reference.parse(text)


def test_a_hub_name_without_revision_is_told_to_pin_one() -> None:
    with pytest.raises(ValueError, match="has no revision; write hub:org/name@<commit>"):
        Reference.parse("hub:org/name")
