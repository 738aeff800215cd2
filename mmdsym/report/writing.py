"""Writes the report of a run."""

from __future__ import annotations

from pathlib import Path

from mmdsym.errors import UserError
from mmdsym.run_log import read_run_log
from mmdsym.trained_run import load_run

from .folder import check_replaceable, write_folder
from .material import Material
from .page import make_sections, render_page
from .reference import find_reference, read_reference
from .sections import Headline, make_headline

PAGE = 'index.html'


def write_report(
    work_dir: str | Path,
    force: bool = False,
    config: str | Path | None = None,
    reference: str | Path | None = None,
) -> Path:
    """Writes ``WORK_DIR/report/``: one page, its pictures as files, and the predictions.

    The last checkpoint is evaluated on the validation images, unless an earlier report holds
    predictions that were made from the same files. An earlier report is replaced as a whole.

    Args:
        work_dir: Work directory of a run of teacher and student, or of a plain detector.
        force: Whether to go on where the folder holds anything that no report wrote, or what was
            found on validation images that are gone; it is then kept under another name.
        config: The training config; by default the one that lies in the work directory.
        reference: Work directory of a supervised run to compare with; by default the best one on
            the same split and validation images that lies beside ``work_dir``.

    Returns:
        The page, ``index.html``.

    Raises:
        UserError: There is no finished checkpoint, the reference does not fit, or the folder holds
            files of somebody else or more than a new report could say.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise UserError(f"'{work_dir}' is no work directory; name the folder of a run.")
    folder = work_dir / 'report'
    check_replaceable(folder, force)
    run = load_run(work_dir, config)
    if reference is not None:
        rival = read_reference(Path(reference), run.config)
    else:
        rival = find_reference(work_dir, run.config) if run.is_pair else None
    material = Material(run, work_dir, read_run_log(work_dir), rival, folder)
    says_more = _says_more(folder, material)
    if says_more and not force:
        raise UserError(
            f"'{folder}' has the accuracy on validation images that are not there now "
            f'({says_more}): start it where they are found, or add --force, which keeps the '
            'folder under another name.'
        )
    headline, sections = make_headline(material), make_sections(material)
    pictures = {
        f'{picture.name}.png': picture.png
        for section in sections.values()
        for picture in section.pictures
    }
    page = render_page(headline, sections).encode('utf-8', errors='replace')
    files = {PAGE: page, **pictures, **material.predictions}
    write_folder(folder, files, _summary(material, headline), keep=bool(says_more))
    return folder / PAGE


def _says_more(folder: Path, material: Material) -> str:
    """Says why an earlier report has what a new one could not; empty where it has not."""
    if not any(folder.glob('predictions_*.json')):
        return ''
    try:
        material.data  # noqa: B018  (opened when it is asked for)
    except UserError as error:
        return str(error).rstrip('.')
    return ''


def _summary(material: Material, headline: Headline) -> dict[str, object]:
    return dict(
        run=headline.title,
        checkpoint=material.run.checkpoint_path.name,
        iteration=material.step,
        headline=dict(headline.numbers),
        warnings=list(headline.warnings),
    )
