"""The words of LaTeX and of plain text that the reader knows: symbols, functions, relations, sets, spellings."""


def listed(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


GREEK = listed(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar aleph odot"
)
OWN_NAMES = listed(
    "sin cos tan cot sec csc sinh cosh tanh coth arcsin arccos arctan arcsinh arccosh arctanh log ln exp gcd lcm max "
    "min det sgn arg floor ceil abs"
)
FUNCTIONS = {name: name for name in OWN_NAMES} | {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "tg": "tan",
    "ctg": "cot",
    "cosec": "csc",
    "lg": "log10",
    "Re": "re",
    "Im": "im",
}
PLAIN_FUNCTIONS = {name: name for name in FUNCTIONS.values() if len(name) > 2} | {
    name: FUNCTIONS.get(name, name) for name in ("asin", "acos", "atan", "ln", "sqrt", "cbrt")
}
PLAIN_COMMANDS = {"pi": r"\pi", "infinity": r"\infty", "inf": r"\infty", "infty": r"\infty"} | {
    name: "\\" + name for name in ("theta", "alpha", "beta", "gamma", "lambda", "omega", "sigma")
}

SPELLINGS = {
    "=": r"= == \equiv",
    "<": r"< \lt",
    ">": r"> \gt",
    "<=": r"<= \le \leq \leqslant \leqq",
    ">=": r">= \ge \geq \geqslant \geqq",
    "!=": r"!= \ne \neq",
    "~": r"\approx \sim \simeq",
    "in": r"\in",
    "sub": r"\subset \subseteq",
    "to": r"\to \rightarrow \mapsto",
    "perp": r"\perp",
    "par": r"\parallel",
    "imp": r"\Rightarrow \implies",
}
RELATIONS = {spelling: sign for sign, spellings in SPELLINGS.items() for spelling in spellings.split()}
NAMED_SETS = {r"\emptyset": "empty", r"\varnothing": "empty"}
TEXT_MACROS = listed(
    r"\text \mbox \textbf \textit \textrm \texttt \textsf \textsc \hbox \textnormal \emph \operatorname \mathrm \rm"
)
FONT_MACROS = listed(r"\mathbf \mathit \mathsf \boldsymbol \bm \mathcal \mathfrak \mathscr \bf \it")
ACCENTS = listed(
    r"\bar \hat \vec \tilde \dot \ddot \overline \widehat \overrightarrow \overleftrightarrow \underline \angle "
    r"\triangle \overset \underset"
)
REFUSED = listed(
    r"\sum \prod \int \iint \oint \lim \partial \nabla \limsup \liminf \bigcup \bigcap \coprod",
)
"""Big operators, which only the second reader knows."""
CLOSERS = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle", r"\lbrack": r"\rbrack", r"\lbrace": r"\rbrace"}
WHOLE_PARTS = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceil"), r"\lvert": (r"\rvert", "abs")}
MATRICES = listed("pmatrix bmatrix Bmatrix matrix smallmatrix array psmallmatrix")

COMMAND_CHARACTERS = {
    r"\times ": "×",
    r"\cdot ": "·⋅",
    r"\pi ": "π",
    r"\sqrt": "√",
    r"\infty ": "∞",
    r"\le ": "≤",
    r"\ge ": "≥",
    r"\ne ": "≠",
    r"\cup ": "∪",
    r"\cap ": "∩",
    r"\in ": "∈",
    r"\emptyset ": "∅",
    r"^\circ ": "°º",
    r"\pm ": "±",
    r"\mp ": "∓",
    r"\setminus ": "∖",
    r"\lfloor ": "⌊",
    r"\rfloor ": "⌋",
    r"\lceil ": "⌈",
    r"\rceil ": "⌉",
    r"\langle ": "⟨",
    r"\rangle ": "⟩",
    r"\theta ": "θ",
    r"\alpha ": "α",
    r"\beta ": "β",
    r"\lambda ": "λ",
    r"\omega ": "ω",
    r"\phi ": "φ",
    r"\mathbb{R}": "ℝ",
    r"\mathbb{Z}": "ℤ",
    r"\mathbb{N}": "ℕ",
    r"\mathbb{Q}": "ℚ",
    r"\frac{1}{2}": "½",
    r"\frac{1}{3}": "⅓",
    r"\frac{2}{3}": "⅔",
    r"\frac{1}{4}": "¼",
    r"\frac{3}{4}": "¾",
    "^2": "²",
    "^3": "³",
    "^4": "⁴",
    "-": "−–—",
    "/": "÷∕⁄",
    ",": "，",
    "(": "（",
    ")": "）",
    ":": "：",
    "'": "’′",
    '"': "“”",
    " ": "\u00a0\u2009\u202f",
}
UNICODE = str.maketrans({letter: meant for meant, letters in COMMAND_CHARACTERS.items() for letter in letters})

PHRASES = dict.fromkeys(("all real numbers", "all reals", "the real numbers", "real numbers"), "R") | dict.fromkeys(
    ("no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set"), "empty"
)
NUMBER_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {name: value for value, name in enumerate(NUMBER_NAMES.split())}
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SEPARATORS = frozenset(("and", "or", ",", ";", "&"))
