"""The examples of the documentation."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/python.md", "python/README.md"])
def test_examples(page):
    pytest.importorskip("torch")
    text = (ROOT / page).read_text()
    # Fences are no part of what is expected; lines keep their numbers.
    code, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = ""
        code.append(line if inside else "")
    examples = doctest.DocTestParser().get_doctest("\n".join(code), {}, page, page, 0)
    assert len(examples.examples) >= 2
    failures = []
    doctest.DocTestRunner().run(examples, out=failures.append)
    assert not failures, "".join(failures)


def test_every_function_is_told_of():
    import softmax

    text = (ROOT / "docs/python.md").read_text()
    missing = [name for name in softmax.__all__ if not re.search(rf"`{name}[`(]|`{name}\b", text)]
    assert missing == ["MergedRow"]
