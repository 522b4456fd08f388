
# What Python's programs need to know of the sandbox: aiohttp asks for the proxy only when it is told to, and urllib
# takes the sandbox's own addresses for the proxy's in some of their forms. Both are mended when they are imported.
def _palisade():
    import sys

    def is_own(host):
        name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host
        if name.count(":") == 1:
            name = name.partition(":")[0]
        name = name.lower()
        return name in ("::1", "0.0.0.0", "localhost") or name.startswith("127.")

    def urllib_request(module):
        theirs = module.proxy_bypass_environment

        def bypass(host, proxies=None):
            return is_own(host) or theirs(host, proxies)

        module.proxy_bypass = module.proxy_bypass_environment = bypass

    def aiohttp_client(module):
        theirs = module.ClientSession.__init__

        def __init__(self, *args, **kwargs):
            kwargs.setdefault("trust_env", True)
            theirs(self, *args, **kwargs)

        module.ClientSession.__init__ = __init__

    mend = {"urllib.request": urllib_request, "aiohttp.client": aiohttp_client}

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name not in mend:
                return None
            others = (finder for finder in sys.meta_path if finder is not self)
            found = (finder.find_spec(name, path, target) for finder in others)
            spec = next((spec for spec in found if spec is not None), None)
            if spec is None:
                return None
            theirs = spec.loader.exec_module

            def exec_module(module):
                theirs(module)
                try:
                    mend[name](module)
                except AttributeError:
                    pass  # A version that is made otherwise: left as it is.

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())


_palisade()
del _palisade
