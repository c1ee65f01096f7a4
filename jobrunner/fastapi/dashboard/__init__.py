"""Pages that show and change jobs: server-rendered HTML that works without JavaScript."""
