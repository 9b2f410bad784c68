"""Pictures for notebooks: a live training plot, static charts, token chips, maps of embeddings.

Every picture has labelled axes, colours that colour-blind eyes tell apart, a white panel so that it can be
read in a dark theme, and a text that says what it shows.
"""

from nanolab.viz.charts import bars, heatmap, lines
from nanolab.viz.live import LivePlot
from nanolab.viz.output import COLOURS, show
from nanolab.viz.tokens import chips, strips, table
from nanolab.viz.watching import watch
from nanolab.viz.words import cosine_table, embedding_map, nearest

__all__ = [
    "COLOURS", "LivePlot", "bars", "chips", "cosine_table", "embedding_map", "heatmap", "lines", "nearest",
    "show", "strips", "table", "watch",
]  # fmt: skip
