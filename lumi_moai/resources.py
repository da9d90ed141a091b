"""Where the bundled `templates/` and `configs/` live."""

from pathlib import Path


def root(kind: str) -> Path:
    """Folder of the bundled *kind*: inside the package in a wheel, beside it in a checkout.

    setuptools maps the two top-level folders into the wheel as `lumi_moai.templates` and `lumi_moai.configs`; an
    editable install and a bare checkout do not have them there (setuptools issue 4248).
    """
    package = Path(__file__).parent
    bundled, checkout = package / kind, package.parent
    if bundled.is_dir():
        return bundled
    if (checkout / "setup.cfg").is_file():  # never pick up a stranger's site-packages/templates
        return checkout / kind
    raise FileNotFoundError(f"lumi_moai was installed without its {kind}/ folder")
