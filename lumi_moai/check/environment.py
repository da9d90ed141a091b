"""Rules on variables, caches, modules and images: what the site's documentation says of them."""

import re
from collections.abc import Iterator

from ..site import Advice, Variable
from .case import Case, replace_text
from .programs import CONTAINERS, FOR_INSIDE, image, verb
from .rule import Edit, Hit, Rule
from .script import Assignment
from .value import holes, known, shown

_SITE = "the site file (`check`)"
_DOWNLOADS = frozenset(("HF_HOME", "TORCH_HOME", "HF_DATASETS_CACHE", "TRANSFORMERS_CACHE", "PIP_CACHE_DIR"))
_MANY = 8
_INTERFACE = "NCCL_SOCKET_IFNAME"


def _network(case: Case) -> Iterator[Hit]:
    wanted = next((v for v in case.site.environment if v.name == _INTERFACE), None)
    if wanted is None:
        return
    yield from _other_network(case, wanted)
    for step in case.steps:
        if not step.nodes or step.nodes < wanted.min_nodes or step.command.value(_INTERFACE) is not None:
            continue
        inside = case.trained(step)
        if not inside or any(c.value(_INTERFACE) is not None for c in inside):
            continue
        hidden = case.hidden(step.command) or case.script.absent
        edits = () if hidden or step.command.within else _before(case, step.command.place.start, wanted.value)
        yield Hit(place=step.command.words[0].place, severity="note" if hidden else None, edits=edits,
                  source=wanted.source, message=f"{_INTERFACE} is not set for {step.nodes} nodes"
                  f"{', unless a module or a script does it' if hidden else ''}: {wanted.reason}")  # fmt: skip
        return


def _other_network(case: Case, wanted: Variable) -> Iterator[Hit]:
    """An interface that is none of the fast network's, given to a step on several nodes."""
    for step in case.steps:
        for command in case.trained(step) if step.nodes and step.nodes >= wanted.min_nodes else ():
            found = command.variables.get(_INTERFACE)
            if found and found.exported and found.place and _is_other(found.text, wanted.value):
                yield Hit(place=found.place, source=wanted.source,
                          message=f"{_INTERFACE}={found.text} names none of the interfaces {wanted.value} of this site:"
                          f" {wanted.reason}")  # fmt: skip
                return


def _is_other(text: str, wanted: str) -> bool:
    names = re.findall(r"\w+", wanted)
    given = text.removeprefix("=").split(",")
    plain = known(text) and re.fullmatch(r"=?\w+(,\w+)*", text)
    return bool(plain) and not any(name.startswith(one) or one.startswith(name) for name in names for one in given)


def _before(case: Case, start: int | None, text: str) -> tuple[Edit, ...]:
    """Export the interface on a line of its own, in front of a command that begins its line."""
    whole = case.script.file_text
    if start is None or start > len(whole) or (start and whole[start - 1] != "\n"):
        return ()
    return (Edit(start=start, end=start, text=f"export {_INTERFACE}={text}\n"),)


def _advice(case: Case, table: tuple[Advice, ...], text: str) -> Iterator[Advice]:
    for one in table:
        if re.search(one.pattern, text) and (one.image is None or any(re.search(one.image, i) for i in case.images)):
            yield one


def _variables(case: Case) -> Iterator[Hit]:
    for found in case.script.assignments:
        inside = next((start for start in FOR_INSIDE if found.variable.name.startswith(start)), "")
        text = f"{found.variable.name.removeprefix(inside)}={shown(found.variable.text)}"
        for one in _advice(case, case.site.check.variables, text):
            yield Hit(place=found.place, severity=one.severity, source=one.source, edits=_changed(case, found, one),
                      message=f"{found.variable.name}: {one.reason}")  # fmt: skip


def _changed(case: Case, found: Assignment, one: Advice) -> tuple[Edit, ...]:
    """Rename the variable, or take out a line that does nothing else."""
    start, text = found.place.start, case.script.file_text
    if one.instead is None or start is None or found.place.path != case.script.path:
        return ()
    if found.variable.name.startswith(FOR_INSIDE) and one.instead:
        return ()
    if re.search(rf"\$\{{?{found.variable.name}\b", text):
        return ()  # somebody reads it by this name
    if one.instead:
        return (Edit(start=start, end=start + len(found.variable.name), text=one.instead),)
    return _line_out(text, start, found.place.end or start, r"(export[ \t]+)?")


def _line_out(text: str, start: int, end: int, before: str) -> tuple[Edit, ...]:
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    stop = len(text) if stop < 0 else stop
    alone = re.fullmatch(rf"[ \t]*{before}", text[begin:start]) and re.fullmatch(r"[ \t;]*(#.*)?", text[end:stop])
    if not alone or text[max(0, begin - 2) : begin] == "\\\n" or _only_statement(text, begin, stop):
        return ()
    return (Edit(start=begin, end=min(stop + 1, len(text)), text=""),)


def _only_statement(text: str, begin: int, stop: int) -> bool:
    """Whether the line may be all that stands between `then` and `fi`: bash takes no empty branch."""
    above = text[:begin].rstrip().rsplit("\n", 1)[-1]
    below = text[stop:].lstrip().split("\n", 1)[0]
    return bool(re.search(r"\b(then|do|else|\{|\()\s*$", above)) and bool(re.match(r"(fi|done|else|elif|\}|\))", below))


def _options(case: Case) -> Iterator[Hit]:
    for directive in case.script.header.directives:
        for one in _advice(case, case.site.check.options, f"--{directive.name}={directive.value}"):
            place = case.script.place(directive)
            edits: tuple[Edit, ...] = ()
            if one.instead == "" and place.start is not None and place.end is not None:
                edits = _line_out(case.script.file_text, place.start, place.end, r"#SBATCH[ \t]+")
            yield Hit(place=place, severity=one.severity, source=one.source, edits=edits,
                      message=f"--{directive.name}: {one.reason}")  # fmt: skip


def _commands(case: Case) -> Iterator[Hit]:
    said = set()
    for command in case.script.commands:
        text = " ".join(word.shown for word in command.words)
        for one in _advice(case, case.site.check.commands, text):
            if (command.place, one.pattern) not in said:
                said.add((command.place, one.pattern))
                yield Hit(place=command.place, severity=one.severity, source=one.source, message=one.reason)


def _images(case: Case) -> Iterator[Hit]:
    said = set()
    for command in case.script.commands:
        texts = [word.text for word in command.words]
        at, how = image(texts) if command.name in CONTAINERS else None, verb(texts)
        if at is None or how is None:
            continue
        for one in _advice(case, case.site.check.images, f"{texts[how]} {shown(texts[at])}"):
            word = command.words[how]
            plain = one.instead and word.raw == word.text and word.place.path == case.script.path
            place = word.place if one.instead else command.words[at].place
            if (place, one.pattern) not in said:
                said.add((place, one.pattern))
                edits = replace_text(word.place, one.instead or "") if plain else ()
                yield Hit(place=place, severity=one.severity, source=one.source, message=one.reason, edits=edits)


def _caches(case: Case) -> Iterator[Hit]:
    names = {cache.variable: cache for cache in case.site.caches}
    checks = case.site.check
    for found in case.script.assignments:
        cache, text = names.get(found.variable.name), shown(found.variable.text)
        if cache and (_in_home(case, text) or text.startswith(checks.shared)):
            where = "the home folder" if _in_home(case, text) else "the parallel file system"
            yield Hit(place=found.place, source=cache.source,
                      message=f"{found.variable.name} lies on {where}, for all ranks: {cache.reason}")  # fmt: skip


def _in_home(case: Case, text: str) -> bool:
    return text.startswith((*case.site.check.home, "$HOME", "${HOME}", "~/"))


def _first_node_only(case: Case) -> Iterator[Hit]:
    """A cache folder that the batch script makes on its own node while ranks run on others."""
    root, names = case.site.policy.cache_root, {cache.variable for cache in case.site.caches}
    if (case.nodes or 1) < 2:
        return
    made = [word.text for c in case.script.commands if c.name == "mkdir" and c.step is None for word in c.words[1:]]
    made_in_tasks = any(c.name in ("mkdir", "install") and c.step is not None for c in case.script.commands)
    for found in case.script.assignments:
        if found.variable.name not in names or found.in_task or made_in_tasks or case.script.absent:
            continue
        text = found.variable.text
        temporary = any(name.startswith("(mktemp") for name in holes(text))
        if temporary or (text.startswith(root) and any(text.startswith(one) for one in made if one)):
            yield Hit(place=found.place, message=f"{shown(text)} is made on the first node only; the tasks of the"
                      " others find no folder. Make it with `srun --ntasks-per-node=1 mkdir -p`")  # fmt: skip


def _home_caches(case: Case) -> Iterator[Hit]:
    for found in case.script.assignments:
        in_home = case.site.check.home and _in_home(case, shown(found.variable.text))
        if found.variable.name in _DOWNLOADS and in_home:
            yield Hit(place=found.place, message=f"{found.variable.name} fills the home folder, whose quota is small")


def _small_files(case: Case) -> Iterator[Hit]:
    """A Python environment on the parallel file system, which every rank of a large job reads file by file."""
    if (case.tasks or case.nodes or 1) < _MANY and (case.nodes or 1) < 2:
        return
    for command in case.script.commands:
        path = command.words[1].shown if command.name in ("source", ".") and len(command.words) > 1 else ""
        if path.endswith("bin/activate") and (path.startswith(case.site.check.shared) or _in_home(case, path)):
            yield Hit(place=command.place, message="every rank reads this environment file by file from the parallel"
                      " file system; one squashfs file starts faster")  # fmt: skip


def _home_data(case: Case) -> Iterator[Hit]:
    for command in case.training() if case.site.check.home else ():
        for word in command.words[1:]:
            if _in_home(case, word.shown.partition("=")[2] or word.shown) and not word.shown.endswith((".py", ".sh")):
                yield Hit(place=word.place, message=f"{word.shown} lies in the home folder, whose quota is small")
                break


OPTION = Rule(id="LM703", name="option", severity="note", title="An option that does nothing here",
              reason="The site file keeps what is known of it.", source=_SITE, look=_options)  # fmt: skip

RULES = (
    Rule(id="LM701", name="network-interface", severity="warning",
         title="No network interface for several nodes, or another one",
         reason="Ranks that look for each other over the wrong network fail to start, or talk over TCP.",
         source=_SITE, look=_network),
    Rule(id="LM702", name="variable", severity="warning", title="A variable that does harm, or nothing",
         reason="Advice grows old; the site file keeps what is known of it.", source=_SITE, look=_variables),
    OPTION,
    Rule(id="LM704", name="command", severity="warning", title="A module or installation that the site advises against",
         reason="The site file keeps what is known of it.", source=_SITE, look=_commands),
    Rule(id="LM705", name="image", severity="warning", title="An image, or a way to start it, that is advised against",
         reason="The site file keeps what is known of it.", source=_SITE, look=_images),
    Rule(id="LM801", name="shared-cache", severity="warning", title="A cache of all ranks on a slow file system",
         reason="Locks and many small files are what a parallel file system is worst at.",
         source="the site file (`caches`)", look=_caches),
    Rule(id="LM802", name="first-node-cache", severity="warning", title="A cache folder on the first node only",
         reason="Folders on a node's own file system have to be made on each node.", source="LUMI-AI-Guide PR 108",
         look=_first_node_only),
    Rule(id="LM804", name="small-files", severity="note", title="A Python environment of many small files",
         reason="A parallel file system is fast with few large files.", source="LUMI-AI-Guide; lumi-userguide, storage",
         look=_small_files),
    Rule(id="LM805", name="home-data", severity="note", title="Data in the home folder",
         reason="Home folders are small; data belongs on the project's storage.",
         source="lumi-userguide, storage", look=_home_data),
    Rule(id="LM803", name="home-cache", severity="warning", title="Downloads in the home folder",
         reason="20 GB and 100,000 files are soon reached.", source="lumi-userguide, storage", look=_home_caches),
)  # fmt: skip
