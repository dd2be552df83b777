"""The plugin host: every hook, finding plugins, and answering for their names."""
