"""The sections of a report, one idea each."""

from collections.abc import Callable

from mmdsym.report.material import Material
from mmdsym.report.parts import Section

from .accuracy import confusion_section, precision_recall_section
from .data import data_section
from .examples import example_section
from .headline import Headline, make_headline
from .progress import accuracy_over_time, losses_over_time
from .pseudo_labels import clip_filter_section, pseudo_label_section, threshold_section
from .reproduction import command_section, config_section, environment_section
from .synthesis import synthesis_section
from .warnings import warning_section

SECTIONS: dict[str, Callable[[Material], Section]] = {
    'Accuracy of each class': precision_recall_section,
    'What is taken for what': confusion_section,
    'Detections on validation images': example_section,
    'Accuracy over time': accuracy_over_time,
    'Losses over time': losses_over_time,
    'Pseudo-labels over time': pseudo_label_section,
    'Thresholds over time': threshold_section,
    'CLIP filter': clip_filter_section,
    'Synthetic defects': synthesis_section,
    'Warnings of the run': warning_section,
    'Data': data_section,
    'Versions, machine and time': environment_section,
    'Commands': command_section,
    'Config': config_section,
}
"""Title to what makes the section, in the order of the page."""

__all__ = ['SECTIONS', 'Headline', 'make_headline']
