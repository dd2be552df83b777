"""The tables of a board: functions from a panel to `gatecrash.boards.content.Table`."""
