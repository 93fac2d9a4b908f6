"""The mutations that `python -m benchmarks.mutations` makes: each changes one point, and all kinds are found."""

from __future__ import annotations

import ast

import pytest

from benchmarks.mutations import MATHEMATICS, REPOSITORY, files, mutations, relevant_tests, words_of_tests

EXPECTED = {
    "y = a + b * c": {"y = (a - b * c)", "y = a + (b / c)"},
    "y = f(σ, b, c=d)": {"y = f(b, σ, c=d)"},
    "y = x.detach().clamp(min=z)": {"y = x.clamp(min=z)", "y = x.detach()"},
    "y = x.mean(0)": {"y = x[0]", "y = x.mean(1)"},
    "y = -z if a < b else c": {"y = z if a < b else c", "y = -z if (a >= b) else c"},
    "y = 0.25, 3, True": {"y = 0.5, 3, True", "y = 0.25, 2, True", "y = 0.25, 4, True"},
    "def f(x: 'a + b' = None) -> A | B:\n    raise ValueError(1 + 1)": set(),
}


@pytest.mark.parametrize("source", EXPECTED)
def test_mutations_by_hand(source: str) -> None:
    assert {m.applied(source) for m in mutations(source)} == EXPECTED[source]


def test_every_mutation_of_the_library_is_python_and_another_program() -> None:
    found = 0
    for path in files(list(MATHEMATICS)):
        source = path.read_text(encoding="utf-8")
        before = ast.dump(ast.parse(source))
        for m in mutations(source)[::20]:
            assert ast.dump(ast.parse(m.applied(source))) != before, str(m)
            found += 1
    assert found > 100


def test_the_relevant_tests_a_mutation_begin_with_those_of_its_topic() -> None:
    words = words_of_tests()
    for name, expected in (("ladder.py", "test_ladder.py"), ("pareto.py", "test_pareto.py"), ("hmc.py", "test_hmc.py")):
        path = next(p for p in files(list(MATHEMATICS)) if p.name == name)
        first = mutations(path.read_text(encoding="utf-8"), path.relative_to(REPOSITORY).as_posix())[0]
        assert relevant_tests(first, words, 1) == [f"tests/{expected}"]
