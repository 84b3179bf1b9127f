"""The pages of a report: tables, figures, claims, papers and costs."""

import os

#: Figures are written to files and never shown. A user's $MPLBACKEND may name a backend that is not installed here; the
#: import of matplotlib would then fail.
os.environ["MPLBACKEND"] = "svg"
