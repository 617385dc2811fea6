import re
lines=open('/tmp/hub/server/server.py').read().split('\n')
sec=[(0,'essay')]
for i,l in enumerate(lines):
    if re.match(r'# -+$',l) and i and lines[i-1].startswith('# ') and len(l)==len(lines[i-1]): sec.append((i,lines[i-1]))
for (a,n),(b,_) in zip(sec,sec[1:]+[(len(lines),'')]): print('%5d %s'%(b-a, n))
