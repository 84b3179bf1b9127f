"""The wheel also has the workflow's files, for ``collabench init``. Everything else is in pyproject.toml."""

from pathlib import Path
from shutil import copy, copytree, ignore_patterns

from setuptools import setup
from setuptools.command.build_py import build_py

#: What a project needs beside params.yaml, from this folder; src/collabench/study/initial.py reads the same.
WORKFLOW = ("Snakefile", "dvc.yaml", ".dvcignore", "profiles", "pipeline")


class BuildWithWorkflow(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the files are read where they lie
            return
        target = Path(self.build_lib) / "collabench" / "workflow"
        target.mkdir(parents=True, exist_ok=True)
        for source in map(Path(__file__).parent.joinpath, WORKFLOW):
            if source.is_dir():
                copytree(source, target / source.name, ignore=ignore_patterns("__pycache__"), dirs_exist_ok=True)
            elif source.exists():
                copy(source, target / source.name)
            else:  # an image that needs no workflow copies a part of the tree
                self.warn(f"{source.name}: is missing, so `collabench init` will not work")


setup(cmdclass={"build_py": BuildWithWorkflow})
