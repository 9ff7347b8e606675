"""Black-box tests: the installed `jobd` as a process, judged by its public contract alone."""
