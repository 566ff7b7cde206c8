"""A finished student is taken again only where it is the one that is asked for."""

import time
from pathlib import Path

import pytest

from export.distillation import Teacher
from export.search.lessons import lesson
from export.search.plans import Cut
from export.search.structures import dense_structure
from export.search.students import Students
from export.source import Source
from slipway.artifacts import Artifact
from slipway.recipe import Export

pytestmark = pytest.mark.integration

CUT = Cut("c20", 0.2, 0.67, 1e6)
OTHER = Cut("c20", 0.2, 0.67, 2e6)


def test_a_student_of_another_search_is_not_taken_for_its_namesake(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    source = Source.open(tiny_checkpoint.path)
    dense = dense_structure(source, tmp_path)

    def students(deadline: float | None) -> Students:
        return Students(source, Export(effort="quick"), [], tmp_path, deadline)

    first = students(None).make(CUT, dense, seed=0)
    assert students(None).make(CUT, dense, seed=0).how == first.how, "it is taken as it is"
    other = students(None).make(OTHER, dense, seed=0)
    assert other.how["cut"]["operations"] == OTHER.operations
    hurried = students(time.monotonic()).make(CUT, dense, seed=0)
    assert hurried.how["steps"] < first.how["steps"]
    assert students(None).make(CUT, dense, seed=0).how["steps"] == first.how["steps"]
    link = students(None).make(Cut("c30", 0.3, 0.67, 1e6), dense, seed=0)
    assert students(None).make(CUT, link, seed=0).how["from"] == "c30"


def test_a_dense_model_whose_answers_were_damaged_is_asked_again(tiny_checkpoint: Artifact, tmp_path: Path) -> None:
    source = Source.open(tiny_checkpoint.path)
    first = lesson(source, Export(effort="quick"), [], tmp_path)
    (file,) = tmp_path.glob("teacher-*")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = lesson(source, Export(effort="quick"), [], tmp_path)
    assert again.answers.digest() == first.answers.digest()
    assert Teacher.read(file).digest() == first.answers.digest()
