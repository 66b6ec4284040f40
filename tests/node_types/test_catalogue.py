import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

import node_types
from graph_defs.catalogue import Catalogue
from node_types.base import (
    InlineNodeType,
    LoopNodeType,
    PlatformNodeType,
    ProcessNodeType,
    ThreadNodeType,
)
from node_types.data_transform import DataTransform
from node_types.file_read import FileMissingError

CATALOGUE = Catalogue.from_packages(node_types)


def test_each_file_is_one_node_type() -> None:
    files = {file.stem for file in Path(node_types.__path__[0]).glob("*.py")} - {"__init__", "base"}
    assert {name.replace(".", "_") for name in CATALOGUE} == files
    assert CATALOGUE.versions() == {
        "aws.batch": 1,
        "aws.lambda": 1,
        "data.transform": 1,
        "docker.run": 1,
        "file.read": 1,
        "http.request": 1,
        "kubernetes.job": 1,
        "work.compute": 1,
        "work.sleep": 1,
    }


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_node_type_says_all_that_is_asked_of_it(name: str) -> None:
    node_type = CATALOGUE[name]
    kinds = {
        "inline": InlineNodeType,
        "loop": LoopNodeType,
        "thread": ThreadNodeType,
        "process": ProcessNodeType,
        "platform": PlatformNodeType,
    }
    assert isinstance(node_type, kinds[node_type.runs_on])
    assert node_type.effects in {"none", "external"}
    assert node_type.version >= 1
    assert node_type.__doc__
    assert issubclass(node_type.With, BaseModel)
    assert issubclass(node_type.Output, BaseModel)
    assert node_type.With.model_config.get("extra") == "forbid"


def test_two_node_types_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.transform"):
        Catalogue([DataTransform(), DataTransform()])


def test_errors_of_nodes_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(FileMissingError("gone", hint="look", node="n")))
    assert (error.code, error.message, error.hint) == ("file_not_found", "gone", "look")
    assert error.ids == {"node": "n"}


def test_the_catalogue_does_not_pay_for_heavy_imports() -> None:
    code = (
        "import sys, node_types; from graph_defs.catalogue import Catalogue;"
        "Catalogue.from_packages(node_types);"
        "print({'httpx', 'docker', 'boto3', 'kubernetes', 'dagster'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
