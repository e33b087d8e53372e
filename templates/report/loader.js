// Starts the packed program, which the page's policy knows by its hash, or says that this browser cannot.

unpack(document.getElementById('program').textContent).then((text) => {
  const script = document.createElement('script');
  script.textContent = text;
  document.head.append(script);
}).catch((error) => {
  const told = document.createElement('p');
  told.className = 'warnings';
  told.textContent = `This browser cannot show the report: ${error}. It takes Chrome 80, Firefox 113, Safari 16.4 or later.`;
  document.getElementById('page').append(told);
});
