#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/llm/data/tokenizers/: small tokenizer.json files and what `tokenizers` makes of texts.

    pip install tokenizers==0.22.1
    python tests/llm/data/make_tokenizers.py DATA_FOLDER

DATA_FOLDER holds the texts of FILES and GPT-2's own tokenizer (tokenizer/gpt2). The five files are
trained on part of them and on the sentences below. A case is one of the five with a merge patch
(RFC 7386) applied, so that many settings are covered by little data. The package's trainer breaks
ties by chance: another run gives slightly different files, with the answers that belong to them.
expected.json:

    nfc       see nfc_hash
    strings   texts that are hard on tokenizers
    pieces    parts of random texts, see random_texts; null stands for a random code point
    cases     name, base, patch; for each string the ids (or their hash) and the hash of the decoded
              text, "|", and the same without special tokens (such hashes: their first 8 digits);
              for the five, the hash of all ids without what the post-processor adds; hashes of
              blocks of random texts
    files     case (or "gpt2_published"), file, number of ids, their hash

A hash is FNV-1a (64 bits) over ids as 4 little-endian bytes each, or over the bytes of a text.
"""
import json
import os
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

assert tokenizers.__version__ == "0.22.1"
DATA = sys.argv[1]
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"""
          r""" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|"""
         r"""'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}"""
         r"""\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+"""
         r"""|\s+(?!\S)|\s+""")
FILES = ["text/wikitext2_test.txt", "text/tinyshakespeare.txt", "dialogsum/dev.jsonl",
         "code/code_alpaca_2k.json", "gsm8k/test.jsonl", "bioinstruct/subset.json",
         "instruct/instruction_data.json"]

SENTENCES = """The quick brown fox jumps over the lazy dog, doesn't it? They'LL say we've won 12345 times.
def score(gradient: list[float], v) -> float:\n    return sum(g * w for g, w in zip(gradient, v))\n
for (int i = 0; i < n; ++i) {\n\t\tsum += x[i] * y[i];  // dot product\n}\n
La forêt où l'été s'achève; naïve façade, cœur brisé, garçon déçu.
Größe und Maß: süße Äpfel fließen über die Straße.
Он сказал, что завтра будет дождь, а потом снова солнце.
他说明天会下雨，然后又是晴天。我们在北京学习中文。
明日は雨が降ると彼は言いました。カタカナとひらがな。
내일은 비가 올 것이라고 그가 말했다. 한국어 문장입니다.
هو قال إن المطر سيهطل غدا ثم تشرق الشمس.
היום יורד גשם ומחר תזרח השמש.
कल बारिश होगी और फिर धूप निकलेगी।
พรุ่งนี้ฝนจะตกแล้วแดดจะออก
Ngày mai trời sẽ mưa rồi nắng lên.
👨‍👩‍👧‍👦 👩🏽‍💻 🇩🇪 ❤️ 😀😀 ✈️""".split("\n")

STRINGS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n ", "\t", "\r\n", " \r\n \n", "a", " a", "a ", "  a  ",
    "Hello, world!", "hello hello  hello   hello", "The quick brown fox jumps over the lazy dog.",
    "don't Don'T DON'T we'll WE'LL they're THEY'RE I'm I'M you've YOU'VE he'd HE'D it's IT'S",
    "'s't're've'm'll'd 'S'T'RE'VE'M'LL'D", "'\u017f '\u017ft x'\u017f", "''s '''s ' s", "o'clock 'quoted'",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000", "x1y22z333 4a5b", "\u0661\u0662\u0663 \u2160\u2161 \u00bd\u00bc \u2460 \u3007",
    "def f(x):\n    if x > 0:\n        return x**2\n\treturn None  # done\n\n\n",
    "#include <vector>\nint main() { return v.size() != 0u ? a->b : c::d; }\r\n",
    "{\"key\": [1, 2, {\"nested\": null}], \"t\": true}", "<div class=\"x\">&nbsp;</div>", "a+b==c&&d||!e^~f%g",
    "https://example.org/path?q=a%20b&c=d#frag", "C:\\\\path\\file.txt", "__init__ snake_case camelCase PascalCase",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f469\U0001f3fd\u200d\U0001f4bb \U0001f1e9\U0001f1ea", "\u2764\ufe0f \U0001f600\U0001f600\U0001f600",
    "\u6211\u4eec\u5728\u5317\u4eac\u5b66\u4e60\u4e2d\u6587\u3002", "\u660e\u65e5\u306f\u96e8\u3002\u30ab\u30bf\u30ab\u30ca", "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8", "\U00020000\U0002a6d6 \ufa0e\ufa1f\uf900\U0002f800",
    "e\u0301 \u00e9 E\u0301\u0302 a\u0323\u0302 a\u0302\u0323 \u1ea5 \u0344 \u0958", "Z\u0351\u036b\u0343\u0363\u0327\u0315\u0321a\u0334\u0335l\u031b\u0324g\u0303\u0303\u0303o",
    "\u0301abc \u0301\u0302", "q\u0307\u0323 \u1e9b\u0323 \u212b \u2126 \u00c5 A\u030a", "\u0915\u094d\u0937 \u0b47\u0b3e \u0cc6\u0cc2\u0cd5",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u200fx", "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\x00", "a\x00b", "\x01\x02\x1f\x7f\x80\x9f", "\x1b[31mred\x1b[0m", "\x0b\x0c\x1c\x1d\x1e\x85", "a\x85b \x85 c",
    "\u00a0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000x", "a\u00a0b\u3000c", "\u180e \u180ex\u200b\u200c\u2060\ufeff", "\ufeffBOM",
    " " * 2 + "a" + " " * 7 + "b" + " " * 40 + "c" + " " * 129, "\n" * 5 + " " * 3 + "\n" * 70 + "x", "\t\t\t  \t x", " \n \n x \n", "x \n\n  y", "\r\r\n\n\r x",
    "a" * 300, "ab" * 200, "\u00e9" * 100, "=" * 80, "-" * 79 + "\n", "." * 33 + "!" * 17, "1" * 50, "_" * 65, "\u2581" * 3 + "x",
    "<0x0A>", "<0x0A><0xFF> <0xZZ> <0x41>", "\u2581", "\u2581a\u2581", "\u0120the \u010a", " \u2581 ", "\u2581\u2581 \u2581",
    "\ufffd", "\ufffd\ufffdx", "\ufffe\uffff\U0001fffe\U0010ffff\ufdd0", "\ue000\U000f0000", "\U000e0001\U000e0067",
    "<s>", "</s>", "<unk>", "<s>hello</s>", "a<s> b </s>c", "<bos>x<eos>", "<pad>", "<|endoftext|>", "x<|endoftext|>y", "<|endoftext|><|endoftext|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>", "<|im_start|>system\nYou are.<|im_end|>\n", "<|im_start|> <|im_end|", "<|endoftext", "<tool_call>{}</tool_call>",
    "a <ls> b <rs> c <both> d <word>e <word> f<word>", "<ls><rs><both>", "   <both>   <both>   ", "<word>\u0301 <word>\u00b2 <word>_ <word>", "caf\u00e9 cafe\u0301 CAF\u00c9", "prefix hello hello, hellohello", "a b", "xa by", "<bo", "<both", "newnew newline new",
    "lower UPPER MiXeD \u00dcber \u0130stanbul \u01c5 \u02b0 \u1d2c", "na\u00efve fa\u00e7ade \u0153uvre \ufb01n \ufb05op", "\u00b5 \u2202x/\u2202y \u2211 \u221e \u2260 \u00b1 \u20ac\u00a3\u00a5 \u2122 \u00a9",
    "\u1f600 \u1d54 \U0001d54f\U0001d7d8 \U00010330 \U0001e900", "\u0b95\u0bca \u0ba8\u0bbf", "word\u200bword word\u00adword", "e\u0301" * 40, "\u0327\u0301" * 40 + "a",
    "Mr. O'Neill said \"it's 5 o'clock\" -- isn't it?", " leading", "trailing ", "a\nb\nc", "1st 2nd 3rd", "x=-1e-9", "...", "?!", "\u2026", "\u201cquoted\u201d \u2018s",
]

PIECES = [None, None, " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "'", "'s", "'LL", "a", "the", "Hello", "word", "\u00e9",
          "e\u0301", "\u0323", "\u0327", "\ud55c", "\u1112", "\u1161", "\u11ab", "\u6211\u4eec", "\u0645\u0631", "0", "12", "123", "\u0663", "\u00bd", ".", ",", "!", "(", "_",
          "=", "--", "\U0001f600", "\u200d", "\ufe0f", "<s>", "<unk>", "</s>", "<|endoftext|>", "<both>", "<word>", "<ls>", "<rs>", "hello", "\u2581", "<0x41>",
          "\x00", "\x85", "\u2028", "\u017f", "ing", "tion", "er"]
BLOCKS, BLOCK = 30, 100

MASK = (1 << 64) - 1


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & MASK
    return f"{h:016x}"


def fnv_ids(ids):
    return fnv(b"".join(i.to_bytes(4, "little") for i in ids))


def random_texts(any_point):
    """BLOCKS blocks of BLOCK texts; a null piece is a code point below 0x30000 that is no surrogate,
    or 'z' where the case goes through PCRE2, whose Unicode may be another."""
    state = 20240229

    def draw(n):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & MASK
        return (state >> 33) % n

    for _ in range(BLOCKS):
        block = []
        for _ in range(BLOCK):
            text = ""
            for _ in range(1 + draw(14)):
                piece = PIECES[draw(len(PIECES))]
                if piece is None:
                    c = draw(0x30000)
                    piece = chr(c) if any_point and not 0xD800 <= c < 0xE000 else "z"
                text += piece
            block.append(text)
        yield block


def nfc_hash():
    """Of the normal forms of each code point below 0x30000, alone and among others, with newlines."""
    nfc = normalizers.NFC().normalize_str
    out = []
    for c in (chr(c) for c in range(0x30000) if not 0xD800 <= c < 0xE000):
        for text in (c, "a\u0346" + c, c + "\u0301", c + "\u0323\u0302", "\u1100" + c + "\u11a8"):
            out.append(nfc(text) + "\n")
    return fnv("".join(out).encode())


def read(name):
    with open(os.path.join(DATA, name), encoding="utf-8", newline="") as f:
        return f.read()


def corpus():
    return SENTENCES * 30 + read("text/wikitext2_valid.txt")[:150000].split("\n") + \
        read("code/code_alpaca_2k.json")[:150000].split("\\n")


def special(i, text, **flags):
    token = dict(id=i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False,
                 special=True)
    token.update(flags)
    return token


def template(bos, i):
    token = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [token, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {bos: {"id": bos, "ids": [i], "tokens": [bos]}}}


def byte_level(regex=False, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def file_of(model, added, normalizer, pre_tokenizer, post_processor, decoder):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "post_processor": post_processor, "decoder": decoder, "model": model}


def train(size, pre_tokenizer, alphabet, limit=None, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    options = {"limit_alphabet": limit} if limit else {}
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False,
                                  max_token_length=16, **options)
    tokenizer.train_from_iterator(corpus(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def sentencepiece_model(model, specials):
    """Specials first, then the 256 byte tokens, then what was trained."""
    names = specials + [f"<0x{b:02X}>" for b in range(256)]
    names += [t for t, _ in sorted(model["vocab"].items(), key=lambda x: x[1])]
    model.update(vocab={t: i for i, t in enumerate(names)}, unk_token="<unk>", fuse_unk=True,
                 byte_fallback=True)
    return model


def bases():
    B = pre_tokenizers.ByteLevel.alphabet()
    split_on = lambda rx: pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(rx), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    out = {}
    model = train(900, pre_tokenizers.ByteLevel(False), B)
    n = len(model["vocab"])
    model["vocab"]["<|endoftext|>"] = n
    out["gpt2"] = file_of(model, [special(n, "<|endoftext|>")], None, byte_level(True), byte_level(True),
                          byte_level(True))

    model = train(900, split_on(LLAMA3), B)
    n = len(model["vocab"])
    # Tokens without a merge, which only ignore_merges finds; and merges spelt the old way.
    model["merges"] = [" ".join(m) for i, m in enumerate(model["merges"]) if i % 9 != 5]
    model["ignore_merges"] = True
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    out["llama3"] = file_of(model, [special(n + i, t) for i, t in enumerate(names)], None,
                            sequence(split({"Regex": LLAMA3}), byte_level()),
                            {"type": "Sequence", "processors": [byte_level(True), template(names[0], n)]},
                            byte_level(True))

    model = train(900, split_on(QWEN2), B)
    n = len(model["vocab"])
    added = [special(n + i, t) for i, t in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])]
    added += [special(n + 3 + i, t, special=False) for i, t in enumerate(["<tool_call>", "</tool_call>"])]
    out["qwen2"] = file_of(model, added, {"type": "NFC"}, sequence(split({"Regex": QWEN2}), byte_level()),
                           byte_level(), byte_level())

    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    chain = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    model = sentencepiece_model(train(700, pre_tokenizers.Metaspace(), ["\u2581"], 150), ["<unk>", "<s>", "</s>"])
    out["llama2"] = file_of(
        model, [special(i, t) for i, t in enumerate(["<unk>", "<s>", "</s>"])],
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, mark]}, None,
        template("<s>", 1),
        {"type": "Sequence", "decoders": chain + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]})

    # Trained across spaces, so that merges join words.
    model = sentencepiece_model(train(700, pre_tokenizers.Split(Regex(r"[^\n]{1,200}"), "isolated"), ["\u2581", "\n"],
                                      120, normalizers.Replace(" ", "\u2581")), ["<pad>", "<eos>", "<bos>", "<unk>"])
    out["gemma"] = file_of(model, [special(i, t) for i, t in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"])],
                           mark, split({"String": " "}, "MergedWithPrevious"), template("<bos>", 2),
                           {"type": "Sequence", "decoders": chain})
    return out


def cases(base):
    n = {k: max(list(f["model"]["vocab"].values()) + [t["id"] for t in f["added_tokens"]]) + 1
         for k, f in base.items()}

    def metaspace(scheme, splits=True):
        part = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": splits}
        return {"normalizer": None, "pre_tokenizer": part, "decoder": part}

    def more(name, *tokens):
        return {"added_tokens": base[name]["added_tokens"] +
                [special(n[name] + i, t, **flags) for i, (t, flags) in enumerate(tokens)]}

    flagged = [("<ls>", dict(lstrip=True)), ("<rs>", dict(rstrip=True)),
               ("<both>", dict(lstrip=True, rstrip=True)), ("<word>", dict(single_word=True)),
               ("hello", dict(special=False, normalized=True, single_word=True)),
               ("new", dict(special=False)), ("newline", dict(special=False)),
               ("cafe\u0301", dict(special=False, normalized=True)), (" b", dict(special=False, normalized=True))]
    out = [(name, name, {}) for name in base]
    out += [
        ("gpt2_prefix", "gpt2", {"pre_tokenizer": byte_level(True, True)}),
        ("gpt2_no_regex", "gpt2", {"pre_tokenizer": byte_level()}),
        ("gpt2_no_pre_tokenizer_regex_prefix", "gpt2", {"pre_tokenizer": byte_level(False, True)}),
        ("gpt2_digits", "gpt2", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, byte_level(True))}),
        ("gpt2_digit_runs", "gpt2", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, byte_level(True))}),
        ("gpt2_prefixed_pieces", "gpt2", {"pre_tokenizer": sequence(split({"Regex": r"\p{N}+"}), byte_level(False, True))}),
        ("gpt2_o200k", "gpt2", {"pre_tokenizer": sequence(split({"Regex": O200K}), byte_level())}),
        ("gpt2_nested", "gpt2", {"pre_tokenizer": sequence(sequence(split({"Regex": QWEN2}), split({"String": "e"})), byte_level(True))}),
        ("gpt2_lookbehind", "gpt2", {"pre_tokenizer": sequence(split({"Regex": r"(?<=\p{L})\p{N}|\u0061*|[\s\d]+$?".replace("$?", "")}), byte_level())}),
        ("gpt2_flags", "gpt2", more("gpt2", *flagged)),
        ("gpt2_nfc_flags", "gpt2", dict(more("gpt2", *flagged), normalizer={"type": "NFC"})),
        ("llama3_merging", "llama3", {"model": {"ignore_merges": False}}),
        ("qwen2_flags", "qwen2", more("qwen2", *flagged)),
        ("llama2_first", "llama2", metaspace("first")),
        ("llama2_always", "llama2", metaspace("always")),
        ("llama2_never", "llama2", metaspace("never")),
        ("llama2_first_whole", "llama2", metaspace("first", False)),
        ("llama2_first_piece", "llama2", {"normalizer": None, "pre_tokenizer": sequence(
            split({"Regex": r"\p{N}"}), {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"})}),
        ("llama2_old_metaspace", "llama2", {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}}),
        ("llama2_unknown_fused", "llama2", {"model": {"byte_fallback": False}}),
        ("llama2_unknown_single", "llama2", {"model": {"byte_fallback": False, "fuse_unk": False}}),
        ("llama2_dropped", "llama2", {"model": {"byte_fallback": False, "unk_token": None}}),
        ("llama2_some_bytes", "llama2", {"model": {"vocab": {"<0xE6>": None, "<0xCC>": None}}}),
        ("llama2_no_decoder", "llama2", {"decoder": None}),
        ("llama2_flags", "llama2", more("llama2", *flagged)),
        ("llama2_replace_regex", "llama2", {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "\u2581"}, {"type": "NFC"}]}}),
        ("gemma_flags", "gemma", more("gemma", *flagged)),
        ("gemma_no_split", "gemma", {"pre_tokenizer": None}),
        ("gemma_merged_with_next", "gemma", {"pre_tokenizer": split({"String": "\u2581"}, "MergedWithNext")}),
    ]
    for pattern in ({"String": " "}, {"Regex": r"\p{N}+|\s"}):
        for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
            for invert in (False, True):
                name = f"gpt2_{next(iter(pattern)).lower()}_{behavior.lower()}{'_inverted' if invert else ''}"
                out.append((name, "gpt2", {"pre_tokenizer": sequence(split(pattern, behavior, invert), byte_level())}))
    return out


def merge_patch(target, patch):
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def published_gpt2():
    folder = os.path.join(DATA, "tokenizer/gpt2")
    tokenizer = Tokenizer(models.BPE.from_file(folder + "/encoder.json", folder + "/vocab.bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


base = bases()
for name, file in base.items():
    with open(f"{OUT}/{name}.json", "w", encoding="utf-8") as f:
        json.dump(file, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")

expected = {"nfc": nfc_hash(), "strings": STRINGS, "pieces": PIECES, "blocks": BLOCKS, "block": BLOCK, "cases": [], "files": []}
loaded = {"gpt2_published": published_gpt2()}
for name, of, patch in cases(base):
    file = merge_patch(base[of], patch)
    tokenizer = Tokenizer.from_str(json.dumps(file))
    loaded[name] = tokenizer
    text = json.dumps(file["pre_tokenizer"] if "pre_tokenizer" in file else "") + json.dumps(file.get("normalizer"))
    any_point = "Regex" not in text.replace(json.dumps(LLAMA3), "").replace(json.dumps(QWEN2), "") or patch == {}
    case = {"name": name, "base": of, "patch": patch, "any_point": any_point}
    ids = [tokenizer.encode(s).ids for s in STRINGS]
    if patch == {}:
        case["ids"] = ids
        case["plain"] = fnv_ids(sum((tokenizer.encode(s, add_special_tokens=False).ids for s in STRINGS), []))
    else:
        case["hashes"] = [fnv_ids(i)[:8] for i in ids]
    decode = lambda i, skip: tokenizer.decode(i, skip_special_tokens=skip)
    case["decoded"] = [fnv((decode(i, False) + "|" + decode(i, True)).encode())[:8] for i in ids]
    case["random"] = [fnv_ids(sum((e.ids for e in tokenizer.encode_batch(block)), [])) for block in random_texts(any_point)]
    expected["cases"].append(case)
    print(name, tokenizer.get_vocab_size(), file=sys.stderr)
for name in ["gpt2_published", *base, "llama2_first", "gpt2_o200k"]:
    for path in FILES:
        ids = loaded[name].encode(read(path)).ids
        expected["files"].append({"case": name, "file": path, "count": len(ids), "hash": fnv_ids(ids)})

with open(f"{OUT}/expected.json", "w", encoding="utf-8") as f:
    json.dump(expected, f, ensure_ascii=True, separators=(",", ":"))
    f.write("\n")
