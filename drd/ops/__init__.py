"""One verb each: ports in, report out. Operations do not print, schedule or notify."""
