import os
import textwrap
from pathlib import Path

import pytest

from matterstack.config.profiles import Profiles, open_backend, resolve, settings
from matterstack.errors import ConfigError, UnknownName
from matterstack.runtime.backends.local import LocalBackend


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty project with an empty home beside it."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return project


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def profile(root, name="laptop", extra=""):
    return f"profiles: {{{name}: {{backend: local, workspace_root: {root}{extra}}}}}\n"


def root_of(name=None, given=None):
    return resolve(Profiles(given).choose(name))["workspace_root"]


def test_without_any_configuration_there_is_a_local_profile(here):
    found = resolve(Profiles().choose(None))
    assert found == {
        "name": "local",
        "backend": "local",
        "workspace_root": str(here / "results"),
        "max_concurrent_tasks": None,
        "grace_s": 5,
    }


def test_the_built_in_profile_can_be_based_elsewhere(tmp_path):
    assert resolve(Profiles(base=tmp_path).choose("local"))["workspace_root"] == str(tmp_path / "results")


def test_a_profile_opens_its_backend(here):
    write(here / "matterstack.yaml", profile("./here", extra=", max_concurrent_tasks: 3"))
    found = settings(Profiles().choose("laptop"))
    assert isinstance(found.backend, LocalBackend)
    assert (found.backend.root, found.backend.slots) == (here / "here", 3)
    again = open_backend(found.profile)
    assert (again.root, again.slots) == (here / "here", 3)


PLACES = [
    "given.yaml",
    "config/profiles.py",
    "config/profiles.yaml",
    "matterstack.yaml",
    "../home/.config/matterstack/profiles.yaml",
]


def fill(here, places):
    for place in places:
        text = f"profiles = {{'laptop': {{'backend': 'local', 'workspace_root': '/from/{place}'}}}}\n"
        write(here / place, text if place.endswith(".py") else profile(f"/from/{place}"))


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_of_two_profiles_with_one_name_the_nearer_file_counts(here, first):
    fill(here, PLACES[first:])
    given = here / "given.yaml" if first == 0 else None
    assert root_of("laptop", given) == os.path.normpath(f"/from/{PLACES[first]}")


def test_profiles_of_all_files_can_be_chosen(here, tmp_path):
    write(here / "matterstack.yaml", profile("/a", "near"))
    write(tmp_path / "matterstack.yaml", profile("/b", "above"))
    write(tmp_path / "home/.config/matterstack/profiles.yaml", profile("/c", "mine"))
    assert Profiles().names() == ["above", "local", "mine", "near"]


def test_the_users_directory_follows_xdg(here, tmp_path, monkeypatch):
    write(tmp_path / "home/.config/matterstack/profiles.yaml", profile("/home"))
    write(tmp_path / "xdg/matterstack/profiles.yaml", profile("/xdg"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert root_of("laptop") == "/xdg"


def test_files_are_found_from_directories_below(here, monkeypatch):
    write(here / "config/profiles.yaml", profile("./runs"))
    below = here / "a/b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert root_of("laptop") == str(here / "runs")


def test_a_nearer_directory_counts_before_one_above(here, monkeypatch):
    write(here / "config/profiles.py", "profiles = {'laptop': {'backend': 'local', 'workspace_root': '/above'}}")
    write(here / "below/matterstack.yaml", profile("/below"))
    monkeypatch.chdir(here / "below")
    assert root_of("laptop") == "/below"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("matterstack.yaml", profile("./runs"), "project/runs"),
        ("config/profiles.yaml", profile("runs"), "project/runs"),
        ("config/profiles.yaml", profile("../shared"), "shared"),
        ("matterstack.yaml", profile("~/runs"), "home/runs"),
        ("matterstack.yaml", profile("/abs"), "/abs"),
        ("config/profiles.py", "profiles = {'laptop': {'backend': 'local', 'workspace_root': 'runs'}}", "project/runs"),
        ("../home/.config/matterstack/profiles.yaml", profile("runs"), "home/runs"),
    ],
)
def test_a_relative_workspace_starts_from_the_project_and_not_from_where_one_stands(
    here, tmp_path, monkeypatch, file, text, expected
):
    write(here / file, text)
    below = here / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert root_of("laptop") == os.path.normpath(tmp_path / expected)


def test_a_given_file_has_its_own_directory_as_base(here, tmp_path):
    given = write(tmp_path / "elsewhere/p.yaml", profile("runs"))
    assert root_of("laptop", given) == str(tmp_path / "elsewhere/runs")
    assert root_of("laptop", Path("../elsewhere/p.yaml")) == str(tmp_path / "elsewhere/runs")


def test_the_nearest_default_counts(here, tmp_path):
    write(tmp_path / "matterstack.yaml", "default: above\n" + profile("/above", "above"))
    assert root_of() == "/above"
    write(here / "matterstack.yaml", profile("/near", "near"))
    assert root_of() == "/above"
    write(here / "config/profiles.yaml", "default: nearest\n" + profile("/nearest", "nearest"))
    assert root_of() == "/nearest"


def test_the_built_in_profile_can_be_replaced(here):
    write(here / "matterstack.yaml", profile("/mine", "local"))
    assert root_of() == "/mine"


def test_a_python_file_may_hold_backends_and_a_default(here):
    write(
        here / "config/profiles.py",
        """\
        from matterstack.runtime.backends.local import LocalBackend
        default = "mine"
        profiles = {"mine": LocalBackend("/tmp/mine", max_concurrent_tasks=2)}
        """,
    )
    found = settings(Profiles().choose(None))
    assert (found.backend.root, found.backend.slots) == (Path("/tmp/mine"), 2)
    assert (found.profile["name"], found.profile["workspace_root"]) == ("mine", "/tmp/mine")


def test_a_backend_object_cannot_be_made_again_from_the_journal():
    with pytest.raises(ConfigError, match="run that script again, or name a profile with --profile"):
        open_backend({"name": "mine"})


def test_an_unknown_profile_is_refused_with_the_nearest(here):
    write(here / "matterstack.yaml", profile("/a", "hpc_prod"))
    with pytest.raises(UnknownName, match=r"no profile 'hpc_prd'\. Did you mean 'hpc_prod'\?"):
        Profiles().choose("hpc_prd")
    with pytest.raises(UnknownName, match="Known: hpc_prod, local"):
        Profiles().choose("zzz")


BAD_YAML = [
    ("", 1, "expected `profiles`, a mapping of names to settings"),
    ("profiles: [a]\n", 1, "expected `profiles`, a mapping of names to settings"),
    ("# mine\nprofiles: 5\n", 2, "expected `profiles`, a mapping of names to settings"),
    ("\nprofile:\n  a: {backend: local}\nprofiles: {}\n", 2, "unknown key 'profile'. Did you mean 'profiles'?"),
    ("defalt: a\nprofiles: {a: {backend: local}}\n", 1, "unknown key 'defalt'. Did you mean 'default'?"),
    ("profiles:\n  laptop: {backend: local}\ndefault: laptp\n", 3, "no profile 'laptp'. Did you mean 'laptop'?"),
    ("default: [a]\nprofiles: {a: {backend: local}}\n", 1, "default: no profile ['a']"),
    ("profiles:\n  a: 5\n", 2, "profiles.a: expected a mapping of settings"),
    ("profiles:\n  a:\n    grace_s: 5\n", 2, "profiles.a: missing key 'backend'. Known: local"),
    ("profiles:\n  a:\n    grace_s: 5\n    backend: loca\n", 4, "profiles.a: no backend 'loca'. Did you mean 'local'?"),
    ("profiles:\n  a:\n    backend: [local]\n", 3, "profiles.a: no backend ['local']"),
    (
        "profiles:\n  a:\n    backend: local\n    max_concurent_tasks: 4\n",
        4,
        "profiles.a: unknown key 'max_concurent_tasks'. Did you mean 'max_concurrent_tasks'?",
    ),
    (
        "profiles:\n  a:\n    backend: local\n\n    max_concurrent_tasks: four\n",
        5,
        "profiles.a.max_concurrent_tasks: expected a whole number or nothing, got text",
    ),
    ("profiles:\n  a:\n    backend: local\n    max_concurrent_tasks: 0\n", 4, "must be at least 1, not 0"),
    ("profiles:\n  a:\n    backend: local\n    grace_s: -1\n", 4, "profiles.a.grace_s: must be at least 0, not -1"),
    ("profiles:\n  a:\n    backend: local\n    workspace_root: [x]\n", 4, "expected text, got a list"),
    ("profiles:\n  a: {backend: local}\n  a: {backend: local}\n", 3, "the key 'a' stands twice"),
    ("profiles: {a: {backend: local}\n", 2, "not valid YAML"),
    ("? [a]\n: 5\n", 1, "a key must be plain text"),
    ("profiles: !!python/object/apply:os.system [ls]\n", 1, "not valid YAML"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD_YAML)
def test_a_mistake_in_a_file_is_told_with_line_path_and_what_was_expected(here, text, line, words):
    file = here / "matterstack.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(Profiles().choose(None if "default" in text else "a"))
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert words in str(caught.value)
    assert "Nothing was started" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "expected `profiles`, a mapping of names to settings"),
        ("profiles = [1]\n", "expected `profiles`, a mapping of names to settings"),
        ("profiles = {'a': 5}\n", "profiles.a: expected a mapping of settings, got a whole number"),
        ("profiles = {'a': {'backend': 'local', 'grace': 5}}\n", "unknown key 'grace'. Did you mean 'grace_s'?"),
        ("profiles = {\n", "profiles.py:1: not valid Python: '{' was never closed"),
        ("x = 1\nprofiles = 1 / 0\n", "profiles.py:2: ZeroDivisionError: division by zero"),
        ("exit(3)\n", "called exit(3) while it was read"),
    ],
)
def test_a_mistake_in_a_python_file_is_told(here, text, words):
    write(here / "config/profiles.py", text)
    with pytest.raises(ConfigError) as caught:
        resolve(Profiles().choose("a"))
    assert "config/profiles.py" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "words"), [("missing.yaml", "no such file"), ("folder.yaml", "is a directory")])
def test_a_given_file_that_is_no_file_is_refused(here, name, words):
    (here / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=words):
        Profiles(here / name)


def test_a_mistake_in_a_profile_that_was_not_chosen_stands_in_nobodys_way(here):
    write(
        here / "matterstack.yaml",
        "profiles:\n  bad: {backend: nowhere}\n  good: {backend: local, workspace_root: /g}\n",
    )
    assert root_of("good") == "/g"
