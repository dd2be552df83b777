"""Published boards: a folder with `<board>.md`, `<board>.yaml`, `results/<board>/*.json`, `figures/` and `README.md`, the index.

A board is its JSON files and the pictures that they name; everything else is generated from these. What would make a table compare things
that are not comparable is refused before anything is written. The README.md beside the folder has tables of boards where it has passages
for them.

`folder` reads boards, `publishing` adds results (`comparable` refuses mixtures, `redaction` removes what tells of a machine), `generated`
writes what is made from the results (`index` and `readme` among it), `checking` finds what does not agree with them.
"""

from gatecrash.boards.published.folder import FIGURES, HERE, Boards, default_boards, read_result

__all__ = ["FIGURES", "HERE", "Boards", "default_boards", "read_result"]
