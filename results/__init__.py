"""What runs leave behind: files on disk, tidy frames, statistics, figures, reports."""
