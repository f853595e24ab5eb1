// SPDX-License-Identifier: Apache-2.0
#include "style.hpp"

namespace dualsft::cli {

// Blue and vermilion, and their lighter relatives on dark, are those of Okabe and Ito: told apart
// with every form of colour blindness. Text has a contrast of at least 4.5 : 1 on its background,
// lines and bars of at least 3 : 1.
std::string_view report_style() {
  return R"css(
:root{color-scheme:light dark;
--ground:#fbfbfa;--card:#ffffff;--ink:#1b1f24;--soft:#545d68;--edge:#d9dde2;--grid:#e6e9ed;
--blue:#0072b2;--red:#b94a00;--rest:#828c98;--good:#e2f1ea;--good-ink:#0b5d44;--bad:#fbe9df;
--bad-ink:#8f3a00}
@media screen and (prefers-color-scheme:dark){:root{
--ground:#14171b;--card:#1c2026;--ink:#e8eaed;--soft:#a9b2bd;--edge:#363d46;--grid:#2b3139;
--blue:#56b4e9;--red:#f0a35e;--rest:#7b8794;--good:#12382e;--good-ink:#8fe0c1;--bad:#43260f;
--bad-ink:#ffc59a}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;overflow-wrap:anywhere}
h1 span{display:block;font-size:1rem;font-weight:600;letter-spacing:.04em;color:var(--blue)}
h2{font-size:1.35rem;margin:0 0 1rem;padding-top:.2rem}
h3{font-size:1.05rem;margin:1.75rem 0 .5rem}
h4{font-size:.95rem;margin:0 0 .5rem}
h5{font-size:.78rem;margin:.7rem 0 .15rem;color:var(--soft);font-weight:600}
p{margin:.4rem 0 .8rem;max-width:46rem;overflow-wrap:anywhere}
.settings{color:var(--soft);max-width:none}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;margin:1rem 0 0;padding:.7rem 0;
border-top:1px solid var(--edge);border-bottom:1px solid var(--edge);font-size:.92rem}
a{color:var(--blue);text-underline-offset:.15em}
section{margin-top:2.75rem;scroll-margin-top:1rem}
footer{color:var(--soft);font-size:.88rem;margin-top:3rem;padding-bottom:2.5rem}
.absent{color:var(--soft);font-style:italic}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15.5rem),1fr));gap:.8rem;
margin:0}
.tile{background:var(--card);border:1px solid var(--edge);border-radius:.5rem;padding:.8rem 1rem}
.tile dt{font-size:.85rem;color:var(--soft);font-weight:600}
.tile dd{margin:0;font-size:.85rem;color:var(--soft)}
.tile dd.big{font-size:1.15rem;line-height:1.4;font-weight:650;color:var(--ink);
font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:.5rem 0 1.4rem;border:1px solid var(--edge);border-radius:.5rem;
background:var(--card);max-width:100%;width:fit-content}
.scroll:focus-visible,summary:focus-visible,a:focus-visible{outline:2px solid var(--blue);
outline-offset:2px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.65rem .8rem .35rem;color:var(--soft);font-size:.85rem}
caption span{display:inline-block;position:sticky;left:.8rem;max-width:calc(100vw - 4rem)}
th,td{padding:.38rem .8rem;text-align:left;vertical-align:top;unicode-bidi:isolate}
thead th{font-size:.82rem;color:var(--soft);border-bottom:1px solid var(--edge);vertical-align:bottom}
tbody th{font-weight:600;max-width:22rem;overflow-wrap:break-word}
tbody tr+tr th,tbody tr+tr td{border-top:1px solid var(--grid)}
td{max-width:30rem;overflow-wrap:break-word}
td.prose{min-width:14rem}
.number{text-align:right;white-space:nowrap}
th.number{white-space:normal}
tr.total th,tr.total td{font-weight:650;border-top:1px solid var(--edge)}
td.bar-column{min-width:7.5rem;width:12rem;vertical-align:middle}
code{overflow-wrap:anywhere;font:.86em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
unicode-bidi:isolate}
.bar-cell{display:block;width:100%;height:.7rem}
.track{fill:var(--grid)}
rect.bar{fill:var(--blue)}
rect.opposite{fill:var(--red)}
.reference{stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem}
figure{margin:0;padding:.9rem 1rem;background:var(--card);border:1px solid var(--edge);
border-radius:.5rem;min-width:0;max-width:40rem}
figcaption{font-size:.87rem;color:var(--soft);overflow-wrap:anywhere}
figcaption b{color:var(--ink)}
.chart{display:block;width:100%;height:auto;font-size:13px;font-variant-numeric:tabular-nums}
.chart .tick{fill:var(--soft)}
.chart .label{fill:var(--ink)}
.chart .grid{stroke:var(--grid)}
.chart .axis{stroke:var(--soft)}
.chart .rest{fill:var(--rest)}
.chart .selected{fill:var(--blue)}
.chart .boundary{stroke:var(--red);stroke-width:1.8;stroke-dasharray:5 3}
.chart .boundary-label{fill:var(--red);font-weight:600;paint-order:stroke;stroke:var(--card);
stroke-width:3px}
.chart .line{fill:none;stroke:var(--blue);stroke-width:1.8;stroke-linejoin:round;
stroke-linecap:round}
.chart .faint{stroke:var(--rest);stroke-width:.8}
.chart .dot{fill:var(--blue)}
.key,.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.82rem;color:var(--soft);
margin:.3rem 0 .5rem;align-items:center}
.key span::before{content:"";display:inline-block;width:.75rem;height:.75rem;margin-right:.4rem;
vertical-align:-.05rem;border-radius:2px}
.key .key-selected::before{background:var(--blue)}
.key .key-rest::before{background:var(--rest)}
.key .key-boundary::before{border-radius:0;width:1.1rem;height:0;border-top:2px dashed var(--red);
vertical-align:.2rem}
.ramp{display:flex}
.ramp i{width:.85rem;height:.85rem}
.legend{gap:.5rem}
table.heat{border-collapse:separate;border-spacing:2px;font-size:.8rem}
.heat th,.heat td{padding:.16rem .45rem;border:0 !important}
.heat thead th,.heat td{text-align:center;min-width:3.6rem}
.heat tbody th{position:sticky;left:0;background:var(--card);text-align:right;white-space:nowrap;
max-width:9rem;overflow:hidden;text-overflow:ellipsis;font-weight:600}
.heat td{border-radius:2px;white-space:nowrap}
.heat td.wide{text-align:left;padding-left:1rem}
.examples{display:grid;gap:.7rem}
article{background:var(--card);border:1px solid var(--edge);border-radius:.5rem;
padding:.8rem 1rem;min-width:0}
.words{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9rem;line-height:1.45;
border-left:3px solid var(--edge);padding-left:.75rem;unicode-bidi:isolate}
details>.words{max-height:30rem;overflow-y:auto;margin-top:.4rem}
summary{cursor:pointer;font-size:.9rem;overflow-wrap:anywhere}
summary .size{color:var(--soft);font-size:.82rem;white-space:nowrap}
.badge{display:inline-block;padding:0 .5rem;border-radius:1rem;font-size:.8rem;font-weight:600;
background:var(--grid);color:var(--ink);white-space:nowrap}
h4 .badge{margin-left:.6rem}
.badge.in{background:var(--good);color:var(--good-ink)}
.badge.out{background:var(--bad);color:var(--bad-ink)}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:0 2rem}
.columns>div{min-width:0}
@media (max-width:40rem){header,main,footer{padding-left:.9rem;padding-right:.9rem}
header{padding-top:1.5rem}h1{font-size:1.5rem}th,td{padding:.35rem .55rem}
figure{padding:.7rem .6rem}.chart{font-size:14px}}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{@page{margin:15mm}
body{font-size:10pt;background:#fff}header,main,footer{max-width:none;padding:0}nav{display:none}
.scroll{overflow:visible}section{margin-top:1.5rem}h2,h3,h4,h5{break-after:avoid}
.legend{break-after:avoid}figure,.tile,tr,article{break-inside:avoid}details>.words{max-height:none}
details::details-content{content-visibility:visible;display:block;height:auto}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";
}

}  // namespace dualsft::cli
