"""The crate is a Workflow Run RO-Crate: by our reading of the profile, and by its validator where that is installed."""

from __future__ import annotations

import json
import sys
import zipfile

import pytest

from matterstack.errors import MatterStackError
from matterstack.provenance import collect, crate

LACKS = "pip install --editable '.[provenance-test]' gets what it needs"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
# The terms of that context which a crate of ours uses; the validator would fetch it, and tests use no network.
SCHEMA = [
    "CreateAction",
    "CreativeWork",
    "ComputerLanguage",
    "Dataset",
    "OrganizeAction",
    "Person",
    "PropertyValue",
    "SoftwareApplication",
    "SoftwareSourceCode",
    "about",
    "actionStatus",
    "additionalProperty",
    "agent",
    "author",
    "contentSize",
    "datePublished",
    "description",
    "encodingFormat",
    "endTime",
    "error",
    "hasPart",
    "identifier",
    "instrument",
    "license",
    "mainEntity",
    "mentions",
    "name",
    "object",
    "programmingLanguage",
    "propertyID",
    "result",
    "softwareVersion",
    "startTime",
    "url",
    "value",
    "version",
]
TERMS = {term: f"http://schema.org/{term}" for term in SCHEMA} | {
    "File": "http://schema.org/MediaObject",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
}


@pytest.fixture
def written(journal_path, tmp_path):
    """The directory of a crate."""
    pytest.importorskip("rocrate", reason=LACKS)
    crate.write(collect(journal_path, events=True), tmp_path / "crate")
    return tmp_path / "crate"


@pytest.fixture
def graph(written):
    metadata = json.loads((written / "ro-crate-metadata.json").read_text())
    return {entity["@id"]: entity for entity in metadata["@graph"]}


def kinds(entity):
    return {entity["@type"]} if isinstance(entity["@type"], str) else set(entity["@type"])


def references(value):
    if isinstance(value, dict):
        yield from [value["@id"]] if set(value) == {"@id"} else []
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_the_root_says_what_it_conforms_to_and_which_workflow_it_is_of(graph):
    root = graph["./"]
    assert set(references(root["conformsTo"])) == set(crate._PROFILES)
    assert root["license"]
    assert root["identifier"].startswith("ms1:scan:")
    workflow = graph[root["mainEntity"]["@id"]]
    assert kinds(workflow) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    assert kinds(graph[workflow["programmingLanguage"]["@id"]]) == {"ComputerLanguage"}


def test_every_reference_leads_somewhere_and_every_file_is_there_or_named_by_its_content(graph, written):
    elsewhere = {"https://w3id.org/ro/crate/1.1"}
    for entity in graph.values():
        for name, value in entity.items():
            assert set(references(value)) <= set(graph) | elsewhere, (entity["@id"], name)
        if "File" in kinds(entity):
            assert entity["@id"].startswith("ni:///sha-256;") or (written / entity["@id"]).is_file()


def test_the_run_and_each_attempt_are_actions_with_what_went_in_and_came_out(graph):
    actions = {key: entity for key, entity in graph.items() if "CreateAction" in kinds(entity)}
    assert set(actions) == {"#run-scan", "#attempt-relax-1", "#attempt-relax-2", "#attempt-plot-1"}
    for action in actions.values():
        assert kinds(graph[action["instrument"]["@id"]]) & {"SoftwareApplication", "ComputationalWorkflow"}
    first, second = actions["#attempt-relax-1"], actions["#attempt-relax-2"]
    assert graph[second["agent"]["@id"]]["name"] == "grace"
    assert graph[first["agent"]["@id"]]["name"] == "ada"
    assert (first["actionStatus"], first["error"]) == (
        "http://schema.org/FailedActionStatus",
        "OUT_OF_MEMORY killed",
    )
    assert "result" not in first
    (made,) = references([second["result"]])
    assert (graph[made]["sha256"], graph[made]["name"]) == ("cd" * 32, "run.xml")
    assert actions["#attempt-plot-1"]["object"]["@id"] == made
    assert graph[second["containerImage"]["@id"]]["name"] == "docker://vasp:6"
    asked = {graph[key]["name"]: graph[key]["value"] for key in references(second["additionalProperty"])}
    assert (asked["cores"], asked["modules"], asked["controller_host"]) == (16, '["module load vasp/6.3"]', "front2")


def test_only_known_terms_are_used(graph):
    used = {name for entity in graph.values() for name in entity} - {"@id", "@type"}
    used |= {kind for entity in graph.values() for kind in kinds(entity)}
    assert used <= set(TERMS) | set(crate._TERMS)


def test_a_name_that_ends_in_zip_gives_a_zipped_crate(journal_path, tmp_path):
    pytest.importorskip("rocrate", reason=LACKS)
    crate.write(collect(journal_path, events=True), tmp_path / "crate.zip", "https://spdx.org/licenses/CC0-1.0")
    with zipfile.ZipFile(tmp_path / "crate.zip") as packed:
        assert "ro-crate-metadata.json" in packed.namelist()
        assert b"https://spdx.org/licenses/CC0-1.0" in packed.read("ro-crate-metadata.json")


def test_without_the_package_a_sentence_says_how_to_install_it(journal_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(MatterStackError, match=r"pip install 'matterstack\[rocrate\]'"):
        crate.write(collect(journal_path, events=True), tmp_path / "crate")
    assert not (tmp_path / "crate").exists()


@pytest.mark.parametrize("profile", ["process-run-crate", "workflow-run-crate"])
def test_the_validator_has_no_complaint(written, profile, monkeypatch):
    pytest.importorskip("rocrate_validator", reason=LACKS)
    from rocrate_validator import models, services
    from rocrate_validator.utils import document_loader, http

    monkeypatch.setattr(document_loader, "_fetch_json_ld", context)
    monkeypatch.setattr(http.HttpRequester, "get", lambda _self, url, *_, **_options: Answer(url), raising=False)
    required = models.Severity.REQUIRED
    settings = models.ValidationSettings(
        rocrate_uri=str(written), profile_identifier=profile, requirement_severity=required
    )
    found = services.validate(settings)
    assert [(issue.check.identifier, issue.message) for issue in found.get_issues()] == []


def context(url):
    assert url == CONTEXT
    return {"@context": TERMS}


class Answer:
    """What the server of the context would answer."""

    status_code, ok = 200, True
    headers = {"Content-Type": "application/ld+json"}  # noqa: RUF012

    def __init__(self, url):
        self.text = json.dumps(context(url))

    def json(self):
        return json.loads(self.text)
