"""Draws every screen of the app in every state without a phone, and checks what a person would see.

    python android_demo/tools/screens.py --out FOLDER [NAME=]BUNDLE ... [--executorch-jar CLASSES.jar]
        [--picture PNG]

Robolectric runs the app's activities on a desktop JVM with Android's own views and its drawing code; the engine under
them is the Android build of the runtime (`desktop_engine.py`), and it runs the bundles that are given. The pictures
come as PNG files into FOLDER, by state and setting; ``--picture`` joins three of them into one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import add_bundles
import build_apk
import desktop_engine
import toolchain
from toolchain import ToolError

DEMO = Path(__file__).resolve().parent.parent
MODULES = ("-pl", "core,engine,app,screens")


def robolectric_android() -> Path:
    """The folder with the framework under the name by which Robolectric looks for it."""
    _, artifact, version, _ = toolchain.PIECES["android-instrumented"].spec.split(":")

    def unpack(folder: Path) -> None:
        (folder / f"{artifact}-{version}.jar").symlink_to(toolchain.fetch("android-instrumented"))

    return toolchain.unpacked("robolectric", toolchain.label_of(["android-instrumented"]), unpack)


def monitor() -> Path:
    """The classes of androidx.test's monitor."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(toolchain.fetch("monitor")) as aar:
            (folder / "classes.jar").write_bytes(aar.read("classes.jar"))

    return toolchain.unpacked("monitor", toolchain.label_of(["monitor"]), unpack) / "classes.jar"


def config(work: Path, linked: Path) -> Path:
    """A folder for the class path that tells Robolectric of the app's manifest and resources."""
    folder = work / "config"
    properties = folder / "com/android/tools/test_config.properties"
    properties.parent.mkdir(parents=True)
    lines = {
        "android_custom_package": "org.ondevice.demo",
        "android_resource_apk": linked,
        "android_merged_manifest": work / "AndroidManifest.xml",
    }
    properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
    return folder


def installed(work: Path, bundles: dict[str, list[Path]]) -> Path:
    """A folder with the bundles by their names, as the app keeps them (Robolectric cannot list assets in folders)."""
    for name, files in bundles.items():
        folder = work / "bundles" / name
        folder.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / file.name)
    return work / "bundles"


def draw(out: Path, bundles: dict[str, list[Path]], classes: Path, test: str = "*ScreenTest") -> int:
    """Draw and check the screens of ``test`` into ``out``. The number of pictures.

    Raises: ToolError: when a person would not see what they should.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".screens-") as name:
        work = Path(name).resolve()
        linked, generated = build_apk.compile_resources(work)
        options = {
            "executorch.jar": classes,
            "app.generated": generated,
            "screens.config": config(work, linked),
            "screens.bundles": installed(work, bundles),
            "screens.out": out.resolve(),
            "native.dir": desktop_engine.libraries("x86_64"),
            "fbjni.jar": toolchain.fbjni() / "classes.jar",
            "monitor.jar": monitor(),
            "robolectric.dir": robolectric_android(),
            "test": test,
            "surefire.failIfNoSpecifiedTests": "false",
        }
        build_apk.maven("test", *MODULES, *(f"-D{key}={value}" for key, value in options.items()))
    if build_apk.num_tests("screens") == 0:
        raise ToolError("no screen was drawn")
    return len(list(out.glob("*.png")))


SHOWN = ("recommend-chosen-light", "recommend-ranked-light", "compare-measured-light")


def join(folder: Path, target: Path) -> None:
    """One picture of three of those in ``folder``, side by side on grey."""
    from PIL import Image  # matplotlib's

    pictures = [Image.open(folder / f"{name}.png").convert("RGB") for name in SHOWN]
    width, height = pictures[0].width // 2, pictures[0].height // 2
    gap = width // 24
    joined = Image.new("RGB", (len(pictures) * (width + gap) + gap, height + 2 * gap), "#9E9E9E")
    for place, picture in enumerate(pictures):
        small = picture.resize((width, height), Image.Resampling.LANCZOS)
        joined.paste(small, (gap + place * (width + gap), gap))
    joined.quantize(128, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", nargs="+", metavar="[NAME=]BUNDLE")
    parser.add_argument("--out", type=Path, required=True, help="a folder, which is emptied first")
    parser.add_argument("--executorch-jar", type=Path, help="classes of org.pytorch.executorch")
    parser.add_argument("--test", default="*ScreenTest", help="one of the tests: BenchmarkScreenTest, say")
    parser.add_argument("--picture", type=Path, help="also write one picture for a README")
    options = parser.parse_args(arguments)
    try:
        bundles = {n: add_bundles.bundle_files(n, at) for n, at in map(add_bundles.parse, options.bundles)}
        classes = (options.executorch_jar or toolchain.android_runtime() / "classes.jar").resolve()
        print(f"{options.out}: {draw(options.out, bundles, classes, options.test)} pictures")
        if options.picture:
            join(options.out, options.picture)
    except (ToolError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
