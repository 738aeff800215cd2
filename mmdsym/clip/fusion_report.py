"""What a fusion says of itself after a fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KindReport:
    """What one kind of evidence is worth, cross-validated on the calibration images.

    Attributes:
        kind: Its name.
        kept: Whether the fusion uses it.
        log_loss_without: Log-loss of the kept kinds without it (or, where it was dropped, of the
            kinds that were kept when it went), in nats for each right box.
        log_loss_with: The same with it.
    """

    kind: str
    kept: bool
    log_loss_without: float
    log_loss_with: float

    @property
    def gain(self) -> float:
        """Fall of the log-loss that it brings, in nats for each right box."""
        return self.log_loss_without - self.log_loss_with


@dataclass(frozen=True)
class FusionReport:
    """What a fit came to.

    Attributes:
        prior: What the first column holds, in words.
        boxes, right: Calibration boxes, and how many of them are right.
        prior_log_loss, log_loss: Of the first column alone, calibrated, and of the fusion, both
            cross-validated.
        prior_ap, ap: Average precision likewise, of the first column as it is.
        kinds: One entry for each kind of evidence but the first.
        fallback: Why the first column is left as it is; empty when a fusion was fitted.
        further: Boxes of the teacher's training images that helped to fit.
    """

    prior: str
    boxes: int = 0
    right: int = 0
    prior_log_loss: float = float('nan')
    log_loss: float = float('nan')
    prior_ap: float = float('nan')
    ap: float = float('nan')
    kinds: tuple[KindReport, ...] = ()
    fallback: str = ''
    further: int = 0

    def lines(self) -> list[str]:
        """Says it in plain words, one sentence a line."""
        if self.fallback:
            return [f'Pseudo-boxes keep the score of {self.prior}: {self.fallback}.']
        lines = [
            f'Fusion of {self.boxes} calibration boxes ({self.right} right): log-loss '
            f'{self.prior_log_loss:.4f} with {self.prior} alone, {self.log_loss:.4f} fused; AP '
            f'{self.prior_ap:.3f} and {self.ap:.3f} (cross-validated).'
        ]
        if self.further:
            lines.append(f"{self.further} boxes of the teacher's training images helped to fit.")
        for kind in self.kinds:
            if kind.kept:
                lines.append(
                    f"Evidence '{kind.kind}' lowers the log-loss by {kind.gain:.4f} a right box."
                )
            else:
                lines.append(
                    f"Evidence '{kind.kind}' adds nothing on the calibration images "
                    f'({kind.gain:+.4f} a right box) and gets weight 0.'
                )
        return lines
