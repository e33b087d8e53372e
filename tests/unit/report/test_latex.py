r"""LaTeX: tables that compile whatever the names in them are."""

from __future__ import annotations

import pytest

from hpcbench.report import render
from hpcbench.report.latex import latex_text
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.report_options import ReportOptions
from tests.support import report_cases as cases
from tests.support.report_parts import COLLECTED_AT, LORA, QWEN, make_job, train_metrics


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("50% of a_b & #1 $x$", r"50\% of a\_b \& \#1 \$x\$"),
        ("~^<>|", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"),
        ("0.5 ± 0.1", r"0.5 $\pm$ 0.1"),
        ('--by "x"', r"-{}-by \symbol{34}x\symbol{34}"),
        ("a\nb\r\x1b[31mc", "a b [31mc"),
    ],
)
def test_text_is_set_as_it_is(text: str, expected: str) -> None:
    assert latex_text(text) == expected


def test_best_figures_are_bold() -> None:
    assert r"\textbf{32.35}" in render(cases.tuner(), format="latex")


def test_groups_of_a_pivot_span_rows_between_rules() -> None:
    def trained(name: str, model: str, length: int) -> ExperimentView:
        metrics = train_metrics(
            trainable=1, total=2, train_loss=1, eval_loss=1, num_samples=431, train_time_s=100, reserved_gib=(27.74,)
        )
        args = QWEN | LORA | {"model_type": model, "max_length": length}
        job = make_job(name, "train", suite="s_1", args=args, metrics=metrics)
        return ExperimentView(suite="s_1", name=name, cmd="sft", main=job)

    views = (trained("a", "m7", 512), trained("b", "m7", 1024), trained("c", "m14", 512), trained("d", "m14", 1024))
    collection = Collection(suites=(SuiteView(name="s_1", experiments=views),), collected_at=COLLECTED_AT)
    options = ReportOptions(layout="pivot", by=("model_type", "max_length"), value=("memory_peak_gib",))
    text = render(collection, format="latex", options=options)
    assert text.endswith(
        r"""
\begin{table}
  \centering
  \caption{s\_1}
  \label{tab:s-1}
  \begin{tabular}{llr}
    \toprule
    Model Type [LoRA] & Max Length & GPU Memory (GiB) \\
    \midrule
    \multirow{2}{*}{m7} & 512 & 27.74 \\
     & 1024 & 27.74 \\
    \midrule
    \multirow{2}{*}{m14} & 512 & 27.74 \\
     & 1024 & 27.74 \\
    \bottomrule
  \end{tabular}
\end{table}
"""
    )


def test_line_breaks_in_names_do_not_leave_a_comment() -> None:
    job = make_job("a\nb", "train", suite="s\n\\evil", args=QWEN)
    view = ExperimentView(suite="s", name="a", cmd="sft", main=job)
    collection = Collection(
        suites=(SuiteView(name="s\n\\evil", experiments=(view,)),),
        collected_at=COLLECTED_AT,
        warnings=("x\n\\evil",),
    )
    assert not any(line.lstrip().startswith(r"\evil") for line in render(collection, format="latex").splitlines())
