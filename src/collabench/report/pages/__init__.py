"""The pages of a report: tables, figures, claims, papers and costs."""

import os

#: Files are drawn, nothing is shown. The surroundings may name a backend that is not installed here, which ends the
#: import.
os.environ["MPLBACKEND"] = "svg"
