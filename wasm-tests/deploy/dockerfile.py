"""The instructions of a Dockerfile, by stage: just enough of the language for ours, an error for anything else."""

import json
import re
import shlex
from dataclasses import dataclass, field

KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "RUN", "STOPSIGNAL", "USER", "WORKDIR"}


@dataclass
class Stage:
    """One `FROM`: its base is another stage or an image."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, name):
        """Returns the argument of the last such instruction, a list if it is JSON; None without one."""
        found = [argument for instruction, argument in self.instructions if instruction == name]
        if not found:
            return None
        return json.loads(found[-1]) if found[-1].startswith("[") else found[-1]

    def copies(self):
        """Returns (source stage or None, sources, target, owner or None) of each COPY."""
        for instruction, argument in self.instructions:
            if instruction == "COPY":
                words = shlex.split(argument)
                flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--"))
                *sources, target = [word for word in words if not word.startswith("--")]
                yield flags.get("from"), sources, target, flags.get("chown")

    def environment(self):
        pairs = [shlex.split(argument) for instruction, argument in self.instructions if instruction == "ENV"]
        return dict(pair.split("=", 1) for line in pairs for pair in line)

    def healthcheck(self):
        found = self.last("HEALTHCHECK")
        return found and json.loads(found[found.index("[") :])


def stages(text):
    """Returns the stages by name, in their order."""
    found = {}
    stage = None
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines():
        if not line.strip():
            continue
        name, argument = line.split(None, 1)
        if name == "FROM":
            base, _, alias = re.fullmatch(r"(\S+)( AS (\S+))?", argument).groups()
            stage = found[alias] = Stage(alias, base)
        elif name in KNOWN:
            stage.instructions.append((name, argument.strip()))
        else:
            raise ValueError(f"not understood: {line}")
    return found
