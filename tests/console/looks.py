"""What makes a page usable by everybody, asked of the page itself as a browser has laid it out."""

__all__ = ["CHECKS", "complaints"]

CHECKS = """() => {
  const wrong = [];
  const say = (what, node) => wrong.push(what + ': ' + node.outerHTML.slice(0, 90));
  const shown = node => node.getClientRects().length &&
    getComputedStyle(node).visibility !== 'hidden';
  if (document.documentElement.lang !== 'en') wrong.push('no lang');
  if (!document.title) wrong.push('no title');
  for (const mark of ['header', 'main', 'footer'])
    if (document.querySelectorAll(mark).length !== 1) wrong.push('not one ' + mark);
  const heads = [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1]);
  if (heads.filter(h => h === 1).length !== 1 || heads[0] !== 1) wrong.push('not one h1 first');
  heads.forEach((h, at) => { if (at && h > heads[at - 1] + 1) wrong.push('heading skipped'); });
  for (const field of document.querySelectorAll('input:not([type=hidden]),select,textarea'))
    if (!field.labels.length || !field.labels[0].innerText.trim()) say('no label', field);
  for (const it of document.querySelectorAll('a[href],button'))
    if (!(it.innerText.trim() || it.getAttribute('aria-label'))) say('no name', it);
  for (const image of document.querySelectorAll('svg'))
    if (!(image.getAttribute('aria-hidden') === 'true' || image.getAttribute('aria-label')
          || image.querySelector('title'))) say('no alternative', image);
  for (const table of document.querySelectorAll('table'))
    if (!table.caption || !table.querySelector('thead th[scope=col]')) say('bare table', table);
  const ids = [...document.querySelectorAll('[id]')].map(n => n.id);
  if (new Set(ids).size !== ids.length) wrong.push('an id twice');
  for (const node of document.querySelectorAll('[aria-labelledby],[aria-describedby]'))
    for (const id of ((node.getAttribute('aria-labelledby') || '') + ' ' +
                      (node.getAttribute('aria-describedby') || '')).split(' ').filter(Boolean))
      if (!document.getElementById(id)) say('names ' + id, node);
  const rgb = text => { const n = text.match(/[\\d.]+/g).map(Number);
    return [n[0], n[1], n[2], n[3] ?? 1]; };
  const light = c => { const [r, g, b] = c.map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = node => { for (let at = node; at; at = at.parentElement) {
    const c = rgb(getComputedStyle(at).backgroundColor); if (c[3] > 0.99) return c; }
    return [255, 255, 255, 1]; };
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !shown(node) || node.closest('svg') || node.closest('.hidden,.skip')) continue;
    const style = getComputedStyle(node);
    const pair = [light(rgb(style.color)), light(behind(node))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) say('contrast ' + ratio.toFixed(2), node);
  }
  for (const it of document.querySelectorAll('button')) {
    const box = it.getBoundingClientRect();
    if (box.height < 24 || box.width < 24) say('small', it);
  }
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth + 1)
    wrong.push('the page is wider than the window by ' +
      (document.documentElement.scrollWidth - document.documentElement.clientWidth));
  if (document.scripts.length) wrong.push('a script');
  return wrong;
}"""


async def complaints(page):
    """Return what is wrong with a page; nothing, if all is well."""
    return await page.evaluate(CHECKS)
