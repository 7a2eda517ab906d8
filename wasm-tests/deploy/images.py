"""Builds by hand what an engine would build: the commands of each build stage of deploy/docker/Dockerfile, in an empty
folder, from what is committed and not in .dockerignore, with the Rust of this machine in place of the base image's.
argv: the repository, and stages to build (all that compile, if none is named). Prints what each leaves behind.
-n as the first of these: nothing is built, only shown to cargo, and its commands printed."""

import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
import dockerfile

REPOSITORY = pathlib.Path(sys.argv[1])
DRY = sys.argv[2:3] == ["-n"]
NAMED = sys.argv[3:] if DRY else sys.argv[2:]


def ignored(patterns, path):
    """Applies Docker's rule: the last pattern that matches a path, or a folder above it, decides."""
    parents = [str(path)] + [str(parent) for parent in path.parents][:-1]
    verdict = False
    for pattern in patterns:
        wanted = pattern.lstrip("!").removeprefix("**/")
        names = [pathlib.PurePath(one).name for one in parents] if "**/" in pattern else parents
        if any(fnmatch.fnmatchcase(name, wanted) for name in names):
            verdict = not pattern.startswith("!")
    return verdict


def context(folder):
    """Returns the build context of the engine."""
    archive = subprocess.Popen(["git", "-C", REPOSITORY, "archive", "HEAD"], stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", folder], stdin=archive.stdout, check=True)
    if archive.wait() != 0:
        sys.exit("git archive failed")
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_symlink() or path.is_file():
            if ignored(patterns, path.relative_to(folder)):
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def build(stages, stage, folder, sources):
    """Runs the stage's commands, its base's first, in `folder`, which is its working directory."""
    if stage.base in stages:
        build(stages, stages[stage.base], folder, sources)
    for name, argument in stage.instructions:
        if name == "COPY":
            if argument.split() != [".", "."]:
                sys.exit(f"{stage.name}: not understood: COPY {argument}")
            shutil.copytree(sources, folder, symlinks=True, dirs_exist_ok=True)
        elif name == "RUN":
            command = re.sub(r"--mount=\S+\s+", "", argument)
            if re.search(r"(^|\s)/", command):
                sys.exit(f"{stage.name}: names a file outside of its working directory: {command}")
            print(f"{stage.name}: {command}", flush=True)
            if not DRY:
                subprocess.run(["sh", "-c", command], cwd=folder, check=True)
            elif (folder / "Cargo.toml").exists():
                shown = "cargo metadata --locked --offline --no-deps --format-version 1".split()
                subprocess.run(shown, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main():
    stages = dockerfile.stages((REPOSITORY / "deploy/docker/Dockerfile").read_text())
    built = {origin for stage in stages.values() for origin, *_ in stage.copies() if origin in stages}
    compiling = [name for name in stages if name in built and any(i == "RUN" for i, _ in stages[name].instructions)]
    with tempfile.TemporaryDirectory(prefix="twilio-edge-images-") as name:
        folder = pathlib.Path(name)
        sources = folder / "context"
        sources.mkdir()
        context(sources)
        for stage in NAMED or compiling:
            (folder / stage).mkdir()
            build(stages, stages[stage], folder / stage, sources)
            # The files that later stages copy exist.
            for image in [] if DRY else stages.values():
                for origin, paths, target, _ in image.copies():
                    if origin != stage:
                        continue
                    for path in paths:
                        left = folder / stage / path.removeprefix("/src/")
                        size = left.stat().st_size if left.is_file() else "a folder"
                        print(f"{image.name}: {target}: {size}")
                        if os.access(left, os.X_OK) and left.is_file():
                            subprocess.run([left, "--version"], check=True)


main()
