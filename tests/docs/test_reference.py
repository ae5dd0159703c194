"""The docs say what the code says: generated pages are current, links lead somewhere, every class has its word."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATE = [sys.executable, str(DOCS / "generate.py")]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"`([A-Z]\w+)`")


def public_classes() -> Iterator[tuple[str, str]]:
    """(module, name) of every class that stands at the top level of a module of gateway or runtime and is not private.

    Generated protobuf modules are left out: their reference is made from the .proto files.
    """
    for package in ("gateway", "runtime"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "pb" in path.relative_to(ROOT).parts:
                continue
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield path.relative_to(ROOT).as_posix(), node.name


def glossary() -> set[str]:
    """Class names in the second column of the tables of concepts.md."""
    rows = [line.split("|") for line in (DOCS / "concepts.md").read_text().splitlines() if line.startswith("|")]
    return {name for row in rows for name in NAME.findall(row[2])}


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_generated_pages_are_what_the_code_says() -> None:
    """`docs/generate.py --check` finds nothing to change."""
    found = subprocess.run([*GENERATE, "--check"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_check_fails_where_a_page_differs(tmp_path: Path) -> None:
    """A changed generated page makes the check exit with 1 and name the page."""
    copy = tmp_path / "docs"
    subprocess.run(["cp", "-r", str(DOCS), str(copy)], check=True)
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    page = copy / "reference" / "versions.md"
    page.write_text(page.read_text() + "more\n")
    found = subprocess.run(
        [sys.executable, str(copy / "generate.py"), "--check"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert found.returncode == 1, found.stderr
    assert found.stdout.splitlines() == [
        "docs/reference/versions.md differs from what the code says: run python docs/generate.py"
    ]


def test_every_public_class_has_its_word() -> None:
    """A class is in the glossary; errors that clients get may be in the table of errors instead."""
    errors = set(NAME.findall((DOCS / "reference" / "errors.md").read_text()))
    missing = [f"{module}: {name}" for module, name in public_classes() if name not in glossary() | errors]
    assert missing == []


def test_the_glossary_names_no_class_that_is_gone() -> None:
    assert sorted(glossary() - {name for _, name in public_classes()}) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    """Links within the repository name a file that exists, and a heading that is in it."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    """Following links from README.md leads to every page of docs/."""
    seen: set[Path] = set()
    pending = [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(page.read_text()) if not re.match(r"\w+:", link))
        pending += [(page.parent / link).resolve() for link in links if link]
    assert sorted(set(DOCS.rglob("*.md")) - seen) == []


def test_model_yaml_examples_are_valid() -> None:
    """Each example in the docs that begins with the comment `# model.yaml` is a manifest without problems."""
    from runtime.repository.manifest import parse_manifest

    examples = [
        text for page in PAGES for text in re.findall(r"```yaml\n(# model\.yaml\n.*?)```", page.read_text(), re.DOTALL)
    ]
    assert examples
    for text in examples:
        parse_manifest(text, "model.yaml")


def test_configuration_examples_are_valid(tmp_path: Path) -> None:
    """Each example that begins with `# driftgate.yaml` loads, once the files it names exist."""
    from gateway.config import load_config

    examples = [
        text
        for page in PAGES
        for text in re.findall(r"```yaml\n(# driftgate\.yaml\n.*?)```", page.read_text(), re.DOTALL)
    ]
    assert examples
    for text in examples:
        named = tmp_path / "named"
        named.write_text("0123456789abcdef")
        file = tmp_path / "driftgate.yaml"
        file.write_text(re.sub(r"/etc/driftgate/[\w./-]+", str(named), text))
        load_config(file, {}, {})


def test_kubernetes_manifest_fits_the_product() -> None:
    """Probes ask the paths that HTTP answers, and the pod is given more time than the drain and its kill need."""
    from gateway.config import Config
    from gateway.supervisor.main import KILL_AFTER_SECONDS

    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "driftgate.yaml").read_text()))
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    settings = next(document for document in documents if document["kind"] == "ConfigMap")
    config = Config.model_validate(yaml.safe_load(settings["data"]["driftgate.yaml"]))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    needed = config.drain.delay_seconds + config.drain.grace_seconds + KILL_AFTER_SECONDS
    assert pod["terminationGracePeriodSeconds"] >= needed
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {name: int(getattr(config, name).rpartition(":")[2]) for name in ports} == ports
