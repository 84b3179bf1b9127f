"""Which executor plugins of Snakemake's a study can use."""

from __future__ import annotations

from collabench.core.errors import CollabenchError


def check_shares_folders(name: str) -> None:
    """Raise CollabenchError (one line) if the jobs of an executor plugin see no folder of this machine's.

    Runs, checkpoints and locks lie in the project's folder. With such a plugin Snakemake
    takes no folder for shared, whatever ``shared-fs-usage`` says.
    """
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry  # type: ignore[import-untyped]

    if ExecutorPluginRegistry().get_plugin(name).common_settings.implies_no_shared_fs:
        raise CollabenchError(
            f"--executor {name}: its jobs share no folder with this machine, and a study needs one; take "
            "--executor cluster-generic with your cluster's commands (docs/how-to/cluster.md#kubernetes)"
        )
