"""Names the packages: those under vlbench, and the tasks and published results, which are installed inside it."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["vlbench", "vlbench.*"]),
        "vlbench._tasks",
        *(f"vlbench._tasks.{package}" for package in find_packages("tasks")),
        "vlbench._published",
    ],
    package_dir={"vlbench": "vlbench", "vlbench._tasks": "tasks", "vlbench._published": "leaderboards/published"},
)
