"""Words that try to be code."""

INJECTIONS = [
    "$(touch {mark})",
    "`touch {mark}`",
    "; touch {mark};",
    "x' ; touch {mark} ; '",
    'x" ; touch {mark} ; "',
    "a\ntouch {mark}\n",
    "| touch {mark} #",
    "#(touch {mark})",
    "-oProxyCommand=touch {mark}",
    "--rsync-path=touch {mark};rsync",
]
